// Flavors: pools under a name that a queue may ask for. In admin mode only.

import { ask } from '../dialogs.js';
import { button, element } from '../elements.js';
import { textField } from '../inputs.js';
import { notify } from '../notices.js';
import { Table } from './table.js';

export function showFlavors(session, signal) {
  const table = new Table({
    label: 'Flavors',
    signal,
    nothing: 'There are no flavors yet. A flavor is a name for some pools; queues may ask for it.',
    nameOf: (flavor) => flavor.name,
    columns: [
      ['Name', (flavor) => element('span', { class: 'name' }, flavor.name)],
      ['Pools', (flavor) => (flavor.pool_list ?? []).join(', ') || '–', 'grow'],
      ['Capabilities', (flavor) => (flavor.capabilities ?? []).join(', ') || '–'],
    ],
    fetch: async (marker) => {
      const more = marker ? { marker } : {};
      const found = await session.call('flavor_list', { detailed: true, ...more });
      return { items: found.flavors, marker: found.marker };
    },
    actions: () => [
      ['Edit', (flavor) => edit(session, table, flavor)],
      ['Delete', (flavor) => remove(flavor)],
    ],
  });

  function remove(flavor) {
    return table.remove({
      title: `Delete the flavor ${flavor.name}?`,
      text: 'Its pools stay, without a flavor.',
      act: () => session.call('flavor_delete', { flavor_name: flavor.name }),
    });
  }

  const head = element(
    'div',
    { class: 'head' },
    element('h1', {}, 'Flavors'),
    element(
      'div',
      { class: 'head-end' },
      button('New flavor', () => edit(session, table), 'primary'),
    ),
  );
  return {
    title: 'Flavors',
    node: element('div', {}, head, table.node),
    start: () => table.load(),
  };
}

async function edit(session, table, flavor = null) {
  const name = textField('Name', { required: true, class: 'code' });
  const pools = textField('Pools', {
    value: (flavor?.pool_list ?? []).join(', '),
    required: true,
    class: 'code',
    hint: 'Names of pools, with commas between.',
  });
  const isDone = await ask({
    title: flavor ? `Flavor ${flavor.name}` : 'New flavor',
    submit: flavor ? 'Save' : 'Create',
    content: [flavor ? null : name.row, pools.row],
    act: () =>
      session.call(flavor ? 'flavor_update' : 'flavor_create', {
        flavor_name: flavor ? flavor.name : name.read(),
        pool_list: pools
          .read()
          .split(',')
          .map((pool) => pool.trim())
          .filter(Boolean),
      }),
  });
  if (isDone) {
    notify('Saved.');
    await table.load();
  }
}
