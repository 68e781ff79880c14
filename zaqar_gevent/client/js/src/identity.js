// Random ids.

// Math.random where there is nothing better (Node 18): these ids are to differ, not to be secret.
export function randomHex(random, digits) {
  const bytes = new Uint8Array(digits / 2);
  if (random === Math.random && globalThis.crypto?.getRandomValues) {
    globalThis.crypto.getRandomValues(bytes);
  } else {
    for (let index = 0; index < bytes.length; index += 1) bytes[index] = random() * 256;
  }
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

const asUUID = (hex) => hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

// A random UUID, version 4 (RFC 9562).
export function uuid4(random) {
  const hex = randomHex(random, 32);
  const variant = '89ab'[parseInt(hex[16], 16) & 3];
  return asUUID(`${hex.slice(0, 12)}4${hex.slice(13, 16)}${variant}${hex.slice(17)}`);
}

// A UUID that begins with the time, version 7 (RFC 9562); `milliseconds` since 1970.
export function uuid7(milliseconds, random = Math.random) {
  const time = Math.floor(milliseconds).toString(16).padStart(12, '0');
  const hex = randomHex(random, 20);
  const variant = '89ab'[parseInt(hex[3], 16) & 3];
  return asUUID(`${time}7${hex.slice(0, 3)}${variant}${hex.slice(4, 19)}`);
}
