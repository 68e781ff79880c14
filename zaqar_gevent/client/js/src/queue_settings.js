// The settings of queues and topics, by the names that `configure` takes.
//
// Written by `tox -e genoperations` from the declarations in zaqar_gevent/api.

export const SETTINGS = {
  maxPostSize: { key: '_max_messages_post_size', forTopics: true },
  defaultTtl: { key: '_default_message_ttl', forTopics: true },
  defaultDelay: { key: '_default_message_delay', forTopics: true },
  deadLetterQueue: { key: '_dead_letter_queue', forTopics: false },
  deadLetterTtl: { key: '_dead_letter_queue_messages_ttl', forTopics: false },
  maxClaims: { key: '_max_claim_count', forTopics: false },
  encrypt: { key: '_enable_encrypt_messages', forTopics: false },
  retryDelay: { key: '_retry_delay', forTopics: false },
  orderedGroups: { key: '_ordered_groups', forTopics: false },
  fairGroups: { key: '_fair_groups', forTopics: false },
  traceContext: { key: '_trace_context', forTopics: false },
  retryPolicy: { key: '_retry_policy', forTopics: true },
  flavor: { key: '_flavor', forTopics: false },
};
