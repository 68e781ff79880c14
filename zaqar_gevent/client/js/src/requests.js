import { OPERATIONS } from './operations.js';

// What each operation is as a request to REST, and which may be repeated, from the generated table.

// The operation of this name; undefined where there is none.
export const operationOf = (action) => (Object.hasOwn(OPERATIONS, action) ? OPERATIONS[action] : undefined);

// The path with its query, and the body (undefined for none), of a request with these arguments.
export function fill({ path, query = {}, filters, ...operation }, given) {
  const left = { ...given };
  const take = (name) => {
    const value = left[name];
    delete left[name];
    return value;
  };
  const target = path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(take(name)));
  const pairs = Object.entries(query).map(([name, argument]) => [name, take(argument)]);
  if (filters) pairs.push(...Object.entries(take(filters) ?? {}));
  const text = pairs.filter(([, value]) => isGiven(value)).map(parameter).join('&');
  return { target: text ? `${target}?${text}` : target, body: bodyOf(operation, left) };
}

function bodyOf({ method, payload, optionalBody }, left) {
  if (method === 'GET' || method === 'DELETE') return undefined;
  if (payload) return left[payload] ?? undefined;
  // No body is another request than an empty one where there is something to be chosen.
  if (optionalBody && !Object.values(left).some(isGiven)) return undefined;
  return left;
}

// The server takes a list as values between commas, which must not be escaped.
function parameter([name, value]) {
  const values = Array.isArray(value) ? value : [value];
  return `${encodeURIComponent(name)}=${values.map(encodeURIComponent).join(',')}`;
}

const isGiven = (value) => value !== undefined && value !== null && value !== '';

// Whether an operation may be repeated when it is not known whether it was done.
export function isRepeatable(action, body) {
  const { given, absent, changes } = operationOf(action)?.repeat ?? { given: 'nothing' };
  if (given && !isThere(body[given])) return false;
  if (absent && isThere(body[absent])) return false;
  return !changes || Array.from(body.changes ?? []).every((change) => changes.includes(change?.op));
}

const isThere = (value) => value !== undefined && value !== null;

// What REST answers with 404 where there is none, and a WebSocket with an empty list.
export const isEmptyList = (action) => action.endsWith('message_get_many');

export const isPost = (action) => action === 'message_post' || action === 'topic_message_post';
