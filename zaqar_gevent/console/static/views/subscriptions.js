// Who is told of what is posted to a queue: webhooks, mail addresses, and connections.

import { ask } from '../dialogs.js';
import { button, element } from '../elements.js';
import { duration } from '../format.js';
import { jsonField, numberField, textField } from '../inputs.js';
import { notify } from '../notices.js';
import { Table } from './table.js';

// What servers show as the subscriber that is a connection of a client.
const CONNECTION = 'websocket:connection';

export function showSubscriptions(resource, signal) {
  const table = new Table({
    label: 'Subscriptions',
    signal,
    nothing: 'Nobody is subscribed. A subscriber is sent each message as it is posted.',
    nameOf: (subscription) => subscription.subscriber,
    columns: [
      ['Subscriber', (subscription) => subscriberOf(subscription), 'grow'],
      ['Age', (subscription) => duration(subscription.age), 'number'],
      ['TTL', (subscription) => duration(subscription.ttl), 'number'],
      ['Confirmed', (subscription) => confirmation(subscription)],
    ],
    fetch: async (marker) => {
      const found = await resource.call('subscription_list', marker ? { marker } : {});
      return { items: found.subscriptions, marker: found.marker };
    },
    // A connected client ends its own.
    actions: (subscription) => (isConnection(subscription) ? [] : [['Delete', remove]]),
  });

  function remove(subscription) {
    return table.remove({
      title: 'Delete the subscription?',
      text: `${subscription.subscriber} will not be told of messages any more.`,
      act: () => resource.call('subscription_delete', { subscription_id: subscription.id }),
    });
  }

  const head = element(
    'div',
    { class: 'bar' },
    button('New subscription', () => create(resource, table), 'primary'),
    button('Reload', () => table.load()),
  );
  return { node: element('div', {}, head, table.node), start: () => table.load() };
}

/** Whether it is not a URI's, but that of a client which is connected to one of the servers. */
function isConnection({ subscriber }) {
  return subscriber === CONNECTION;
}

function subscriberOf(subscription) {
  return isConnection(subscription)
    ? 'A connected client'
    : element('code', {}, subscription.subscriber);
}

function confirmation(subscription) {
  if (subscription.confirmed === undefined || isConnection(subscription)) {
    return '–';
  }
  return subscription.confirmed ? 'Yes' : 'Not yet';
}

async function create(resource, table) {
  const subscriber = textField('Subscriber', {
    required: true,
    class: 'code',
    inputmode: 'url',
    placeholder: 'https://example.com/hook',
    hint: 'A webhook (http, https) or a mail address (mailto:).',
  });
  const ttl = numberField('TTL, s', { min: 1, hint: 'Empty for the server’s own.' });
  const options = jsonField('Options', { rows: 3, emptyIs: {}, hint: 'An object, or nothing.' });
  const isDone = await ask({
    title: 'New subscription',
    submit: 'Subscribe',
    content: [subscriber.row, ttl.row, options.row],
    act: async () => {
      const seconds = ttl.read();
      await resource.call('subscription_create', {
        subscriber: subscriber.read(),
        options: options.readObject(),
        ...(seconds === undefined ? {} : { ttl: seconds }),
      });
    },
  });
  if (isDone) {
    notify('Subscribed.');
    await table.load();
  }
}
