// Every operation that a server may offer, by its WebSocket action.
//
// Written by `tox -e genoperations` from the declarations in zaqar_gevent/api.
//
// method, path: its route in REST, null where it has none.
// query: from the names of query parameters to those of arguments.
// payload: the argument that is the whole body.
// filters: the argument whose members are query parameters.
// mediaType: of the body.
// optionalBody: whether no body means something else than an empty one.
// repeat: when a request may be repeated safely, null for never. `given` and `absent` name an
// argument that must or must not be there; `changes` lists the operations of a JSON patch that
// each change must be one of.
export const OPERATIONS = {
  message_post: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/messages',
    repeat: { given: 'post_id' },
  },
  topic_message_post: {
    method: 'POST',
    path: '/v2/topics/{topic_name}/messages',
    repeat: { given: 'post_id' },
  },
  message_list: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/messages',
    repeat: {},
    query: { marker: 'marker', limit: 'limit', echo: 'echo', include_claimed: 'include_claimed', include_delayed: 'include_delayed', wait: 'wait' },
  },
  topic_message_list: {
    method: 'GET',
    path: '/v2/topics/{topic_name}/messages',
    repeat: {},
    query: { marker: 'marker', limit: 'limit', echo: 'echo', include_claimed: 'include_claimed', include_delayed: 'include_delayed', wait: 'wait' },
  },
  message_get_many: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/messages',
    repeat: {},
    query: { ids: 'message_ids' },
  },
  topic_message_get_many: {
    method: 'GET',
    path: '/v2/topics/{topic_name}/messages',
    repeat: {},
    query: { ids: 'message_ids' },
  },
  message_get: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/messages/{message_id}',
    repeat: {},
  },
  topic_message_get: {
    method: 'GET',
    path: '/v2/topics/{topic_name}/messages/{message_id}',
    repeat: {},
  },
  message_delete: {
    method: 'DELETE',
    path: '/v2/queues/{queue_name}/messages/{message_id}',
    repeat: {},
    query: { claim_id: 'claim_id' },
  },
  topic_message_delete: {
    method: 'DELETE',
    path: '/v2/topics/{topic_name}/messages/{message_id}',
    repeat: {},
    query: { claim_id: 'claim_id' },
  },
  message_delete_many: {
    method: 'DELETE',
    path: '/v2/queues/{queue_name}/messages',
    repeat: { absent: 'pop' },
    query: { ids: 'message_ids', claim_ids: 'claim_ids', pop: 'pop' },
  },
  topic_message_delete_many: {
    method: 'DELETE',
    path: '/v2/topics/{topic_name}/messages',
    repeat: { absent: 'pop' },
    query: { ids: 'message_ids', claim_ids: 'claim_ids', pop: 'pop' },
  },
  message_ack_many: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/messages/ack',
    repeat: null,
  },
  message_release_many: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/messages/release',
    repeat: null,
  },
  message_reject_many: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/messages/reject',
    repeat: null,
  },
  message_extend_many: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/messages/extend',
    repeat: {},
  },
  claim_create: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/claims',
    repeat: null,
    query: { limit: 'limit', wait: 'wait' },
  },
  claim_get: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/claims/{claim_id}',
    repeat: {},
  },
  claim_update: {
    method: 'PATCH',
    path: '/v2/queues/{queue_name}/claims/{claim_id}',
    repeat: {},
  },
  claim_delete: {
    method: 'DELETE',
    path: '/v2/queues/{queue_name}/claims/{claim_id}',
    repeat: {},
    query: { delay: 'delay' },
  },
  get_versions: {
    method: 'GET',
    path: '/',
    repeat: {},
  },
  get_capabilities: {
    method: 'GET',
    path: '/v2/capabilities',
    repeat: {},
  },
  get_home_doc: {
    method: 'GET',
    path: '/v2/',
    repeat: {},
  },
  ping_node: {
    method: 'GET',
    path: '/v2/ping',
    repeat: {},
  },
  check_node_health: {
    method: 'GET',
    path: '/v2/health',
    repeat: {},
  },
  quota_get: {
    method: 'GET',
    path: '/v2/quotas',
    repeat: {},
  },
  get_openapi: {
    method: 'GET',
    path: '/v2/openapi.json',
    repeat: {},
  },
  get_asyncapi: {
    method: 'GET',
    path: '/v2/asyncapi.json',
    repeat: {},
  },
  flavor_list: {
    method: 'GET',
    path: '/v2/flavors',
    repeat: {},
    query: { detailed: 'detailed', limit: 'limit', marker: 'marker' },
  },
  flavor_get: {
    method: 'GET',
    path: '/v2/flavors/{flavor_name}',
    repeat: {},
  },
  flavor_create: {
    method: 'PUT',
    path: '/v2/flavors/{flavor_name}',
    repeat: {},
  },
  flavor_update: {
    method: 'PATCH',
    path: '/v2/flavors/{flavor_name}',
    repeat: {},
  },
  flavor_delete: {
    method: 'DELETE',
    path: '/v2/flavors/{flavor_name}',
    repeat: {},
  },
  pool_list: {
    method: 'GET',
    path: '/v2/pools',
    repeat: {},
    query: { detailed: 'detailed', limit: 'limit', marker: 'marker' },
  },
  pool_get: {
    method: 'GET',
    path: '/v2/pools/{pool_name}',
    repeat: {},
    query: { detailed: 'detailed' },
  },
  pool_create: {
    method: 'PUT',
    path: '/v2/pools/{pool_name}',
    repeat: {},
  },
  pool_update: {
    method: 'PATCH',
    path: '/v2/pools/{pool_name}',
    repeat: {},
  },
  pool_delete: {
    method: 'DELETE',
    path: '/v2/pools/{pool_name}',
    repeat: {},
  },
  queue_list: {
    method: 'GET',
    path: '/v2/queues',
    repeat: {},
    query: { marker: 'marker', limit: 'limit', detailed: 'detailed', name: 'name', with_count: 'with_count' },
    filters: 'metadata',
  },
  topic_list: {
    method: 'GET',
    path: '/v2/topics',
    repeat: {},
    query: { marker: 'marker', limit: 'limit', detailed: 'detailed', name: 'name', with_count: 'with_count' },
    filters: 'metadata',
  },
  queue_create: {
    method: 'PUT',
    path: '/v2/queues/{queue_name}',
    repeat: {},
    payload: 'metadata',
  },
  topic_create: {
    method: 'PUT',
    path: '/v2/topics/{topic_name}',
    repeat: {},
    payload: 'metadata',
  },
  queue_get: {
    method: 'GET',
    path: '/v2/queues/{queue_name}',
    repeat: {},
  },
  topic_get: {
    method: 'GET',
    path: '/v2/topics/{topic_name}',
    repeat: {},
  },
  queue_delete: {
    method: 'DELETE',
    path: '/v2/queues/{queue_name}',
    repeat: {},
  },
  topic_delete: {
    method: 'DELETE',
    path: '/v2/topics/{topic_name}',
    repeat: {},
  },
  queue_update: {
    method: 'PATCH',
    path: '/v2/queues/{queue_name}',
    repeat: { changes: ['add', 'replace'] },
    payload: 'changes',
    mediaType: 'application/openstack-messaging-v2.0-json-patch',
  },
  topic_update: {
    method: 'PATCH',
    path: '/v2/topics/{topic_name}',
    repeat: { changes: ['add', 'replace'] },
    payload: 'changes',
    mediaType: 'application/openstack-messaging-v2.0-json-patch',
  },
  queue_get_stats: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/stats',
    repeat: {},
  },
  topic_get_stats: {
    method: 'GET',
    path: '/v2/topics/{topic_name}/stats',
    repeat: {},
  },
  queue_purge: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/purge',
    repeat: null,
    optionalBody: true,
  },
  topic_purge: {
    method: 'POST',
    path: '/v2/topics/{topic_name}/purge',
    repeat: null,
    optionalBody: true,
  },
  queue_share: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/share',
    repeat: {},
  },
  redrive_create: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/redrives',
    repeat: null,
  },
  redrive_list: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/redrives',
    repeat: {},
    query: { marker: 'marker', limit: 'limit' },
  },
  redrive_get: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/redrives/{redrive_id}',
    repeat: {},
  },
  redrive_delete: {
    method: 'DELETE',
    path: '/v2/queues/{queue_name}/redrives/{redrive_id}',
    repeat: {},
  },
  subscription_list: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/subscriptions',
    repeat: {},
    query: { marker: 'marker', limit: 'limit' },
  },
  topic_subscription_list: {
    method: 'GET',
    path: '/v2/topics/{topic_name}/subscriptions',
    repeat: {},
    query: { marker: 'marker', limit: 'limit' },
  },
  subscription_create: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/subscriptions',
    repeat: null,
  },
  topic_subscription_create: {
    method: 'POST',
    path: '/v2/topics/{topic_name}/subscriptions',
    repeat: null,
  },
  subscription_get: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/subscriptions/{subscription_id}',
    repeat: {},
  },
  topic_subscription_get: {
    method: 'GET',
    path: '/v2/topics/{topic_name}/subscriptions/{subscription_id}',
    repeat: {},
  },
  subscription_update: {
    method: 'PATCH',
    path: '/v2/queues/{queue_name}/subscriptions/{subscription_id}',
    repeat: {},
  },
  topic_subscription_update: {
    method: 'PATCH',
    path: '/v2/topics/{topic_name}/subscriptions/{subscription_id}',
    repeat: {},
  },
  subscription_delete: {
    method: 'DELETE',
    path: '/v2/queues/{queue_name}/subscriptions/{subscription_id}',
    repeat: {},
  },
  topic_subscription_delete: {
    method: 'DELETE',
    path: '/v2/topics/{topic_name}/subscriptions/{subscription_id}',
    repeat: {},
  },
  subscription_confirm: {
    method: 'PUT',
    path: '/v2/queues/{queue_name}/subscriptions/{subscription_id}/confirm',
    repeat: {},
  },
  topic_subscription_confirm: {
    method: 'PUT',
    path: '/v2/topics/{topic_name}/subscriptions/{subscription_id}/confirm',
    repeat: {},
  },
  queue_consume: {
    method: null,
    path: null,
    repeat: null,
  },
  message_ack: {
    method: null,
    path: null,
    repeat: null,
  },
  message_release: {
    method: null,
    path: null,
    repeat: null,
  },
  message_reject: {
    method: null,
    path: null,
    repeat: null,
  },
  consumer_stop: {
    method: null,
    path: null,
    repeat: {},
  },
  subscription_resume: {
    method: null,
    path: null,
    repeat: {},
  },
  hello: {
    method: null,
    path: null,
    repeat: {},
  },
  ping: {
    method: null,
    path: null,
    repeat: {},
  },
  authenticate: {
    method: null,
    path: null,
    repeat: {},
  },
};
