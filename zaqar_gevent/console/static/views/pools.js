// Pools: the stores that queues are spread over. In admin mode only.

import { ask } from '../dialogs.js';
import { button, element } from '../elements.js';
import { jsonField, numberField, textField } from '../inputs.js';
import { full } from '../format.js';
import { notify } from '../notices.js';
import { Table } from './table.js';

export function showPools(session, signal) {
  const table = new Table({
    label: 'Pools',
    signal,
    nothing: 'There are no pools yet. A pool is a store that queues are put into.',
    nameOf: (pool) => pool.name,
    columns: [
      ['Name', (pool) => element('span', { class: 'name' }, pool.name)],
      ['URI', (pool) => element('code', {}, pool.uri), 'grow'],
      ['Weight', (pool) => String(pool.weight), 'number'],
      ['Flavor', (pool) => pool.flavor ?? '–'],
    ],
    fetch: async (marker) => {
      const found = await session.call('pool_list', marker ? { marker } : {});
      return { items: found.pools, marker: found.marker };
    },
    actions: () => [
      ['Edit', (pool) => edit(session, table, pool)],
      ['Delete', (pool) => remove(pool)],
    ],
  });

  function remove(pool) {
    return table.remove({
      title: `Delete the pool ${pool.name}?`,
      text: 'The server no longer uses the store; what is in it stays there, out of reach.',
      act: () => session.call('pool_delete', { pool_name: pool.name }),
    });
  }

  const head = element(
    'div',
    { class: 'head' },
    element('h1', {}, 'Pools'),
    element('div', { class: 'head-end' }, button('New pool', () => edit(session, table), 'primary')),
  );
  return {
    title: 'Pools',
    node: element('div', {}, head, table.node),
    start: () => table.load(),
  };
}

async function edit(session, table, pool = null) {
  const detailed = pool && (await session.call('pool_get', { pool_name: pool.name, detailed: true }));
  const name = textField('Name', { required: true, class: 'code' });
  const uri = textField('URI', {
    value: pool?.uri,
    required: true,
    class: 'code',
    placeholder: 'sqlite:///var/lib/zaqar/one.sqlite',
  });
  const weight = numberField('Weight', { min: 0, value: pool?.weight ?? 100 });
  const flavor = textField('Flavor', { value: pool?.flavor ?? '', hint: 'Or nothing.' });
  const options = jsonField('Options', {
    rows: 3,
    value: detailed?.options ? full(detailed.options) : '',
    emptyIs: {},
    hint: 'An object, or nothing.',
  });
  const isDone = await ask({
    title: pool ? `Pool ${pool.name}` : 'New pool',
    submit: pool ? 'Save' : 'Create',
    content: [pool ? null : name.row, uri.row, weight.row, flavor.row, options.row],
    act: () =>
      session.call(pool ? 'pool_update' : 'pool_create', {
        pool_name: pool ? pool.name : name.read(),
        uri: uri.read(),
        weight: weight.read() ?? 0,
        options: options.readObject(),
        ...(flavor.read() ? { flavor: flavor.read() } : {}),
      }),
  });
  if (isDone) {
    notify('Saved.');
    await table.load();
  }
}
