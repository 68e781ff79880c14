// From what REST answers to what a WebSocket does: ids and markers in place of hrefs and links.

const lastOf = (href) => decodeURIComponent(href.split('?')[0].split('/').at(-1));
const queryOf = (href) => new URLSearchParams(href.split('?')[1] ?? '');

function unlink({ href, ...members }) {
  return members;
}

function messageOf({ href, ...members }) {
  return { ...members, id: members.id ?? lastOf(href), claim_id: queryOf(href).get('claim_id') };
}

function pageOf(kind, convert) {
  return (body) => {
    const { links = [], ...page } = body ?? {};
    page[kind] = (page[kind] ?? []).map(convert);
    const marker = links.length ? queryOf(links[0].href).get('marker') : null;
    return marker === null ? page : { ...page, marker };
  };
}

function claimOf(body) {
  const messages = (body?.messages ?? []).map(messageOf);
  return { claim_id: messages[0]?.claim_id ?? null, messages };
}

function statsOf({ messages }) {
  const ends = ['oldest', 'newest'].filter((name) => messages[name]);
  const named = ends.map((name) => {
    const { href, ...members } = messages[name];
    return [name, { ...members, id: lastOf(href) }];
  });
  return { messages: { ...messages, ...Object.fromEntries(named) } };
}

const messagePageOf = pageOf('messages', messageOf);
const popped = (body) => (body ? { messages: body.messages.map((one) => ('href' in one ? messageOf(one) : one)) } : {});

const FROM_REST = {
  message_post: (body) => ({ message_ids: body.resources.map(lastOf) }),
  message_list: messagePageOf,
  message_get_many: (body) => ({ messages: body.messages.map(messageOf) }),
  message_get: (body) => ({ messages: messageOf(body) }),
  message_delete_many: popped,
  claim_create: claimOf,
  claim_get: ({ href, ...claim }) => ({ ...claim, messages: claim.messages.map(messageOf) }),
  queue_list: pageOf('queues', unlink),
  topic_list: pageOf('topics', unlink),
  queue_get_stats: statsOf,
  topic_get_stats: statsOf,
  subscription_list: pageOf('subscriptions', (one) => one),
  pool_list: pageOf('pools', unlink),
  pool_get: unlink,
  pool_update: unlink,
  flavor_list: pageOf('flavors', unlink),
  flavor_get: unlink,
  flavor_update: unlink,
};

export const fromREST = (action, body) => {
  const convert = FROM_REST[action] ?? FROM_REST[action.replace(/^topic_/, '')];
  return convert ? convert(body) : (body ?? {});
};
