// What outlives a view: a claim that is held, or a history, is there still when one comes back.

const kept = new WeakMap();

/** What was made for `key` while this client lasts; `make` makes it the first time. */
export function remembered(client, key, make) {
  if (!kept.has(client)) {
    kept.set(client, new Map());
  }
  const things = kept.get(client);
  if (!things.has(key)) {
    things.set(key, make());
  }
  return things.get(key);
}
