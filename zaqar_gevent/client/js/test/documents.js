// Random documents, the same ones each time.

// Numbers from 0 to 1, by the generator that is known as mulberry32.
export function randomOf(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const ALPHABETS = ['abcXYZ 019_-"\\\n', 'éßñ€', '漢字かな', '😀🚀', '\u0000\u001f\u007f\u2028'];
// Around each border between two forms.
const BORDERS = [0, 0x20, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff]
  .concat([0x80000000, 0xffffffff, 0x100000000, 2 ** 48, Number.MAX_SAFE_INTEGER])
  .flatMap((border) => [border, -border, border - 1, 1 - border])
  .map((number) => number + 0);
const ESCAPED = /["\\\u0000-\u001f]/g;
const LENGTHS = [0, 1, 5, 15, 16, 31, 32, 40, 255, 256, 300];

export class Documents {
  #random;
  #plainNames;

  // bigints: whether there are integers beyond 2^53. binary: whether there are bytes. plainNames:
  // whether no member has a name that JSON escapes.
  constructor(seed, { bigints = false, binary = false, plainNames = false } = {}) {
    this.#random = randomOf(seed);
    this.#plainNames = plainNames;
    this.scalars = [
      () => null,
      () => this.#random() < 0.5,
      () => this.#pick(BORDERS),
      () => Math.floor((this.#random() - 0.5) * 2 ** Math.floor(this.#random() * 54)) + 0,
      () => (this.#random() - 0.5) * 10 ** Math.floor(this.#random() * 600 - 300),
      () => this.text(),
      ...(bigints ? [() => this.#bigint()] : []),
      ...(binary ? [() => this.#bytes()] : []),
    ];
  }

  #pick(list) {
    return list[Math.floor(this.#random() * list.length)];
  }

  #length() {
    return this.#random() < 0.9 ? Math.floor(this.#random() * 5) : this.#pick(LENGTHS);
  }

  text() {
    const characters = [...this.#pick(ALPHABETS)];
    return Array.from({ length: this.#length() }, () => this.#pick(characters)).join('');
  }

  #name() {
    return this.#plainNames ? this.text().replace(ESCAPED, '_') : this.text();
  }

  // Of 64 bits, and not to be said by a number.
  #bigint() {
    const bits = BigInt(54 + Math.floor(this.#random() * 10));
    const value = (1n << (bits - 1n)) + BigInt(Math.floor(this.#random() * 2 ** 53));
    return this.#random() < 0.5 ? value : -(value >> 1n) - (1n << 53n);
  }

  #bytes() {
    return Uint8Array.from({ length: this.#length() }, () => this.#random() * 256);
  }

  next(depth = 0) {
    const kind = depth < 5 ? this.#random() : 1;
    const count = depth === 0 ? this.#length() : Math.floor(this.#random() * 4);
    if (kind < 0.3) return Array.from({ length: count }, () => this.next(depth + 1));
    if (kind < 0.6) {
      const members = Array.from({ length: count }, () => [this.#name(), this.next(depth + 1)]);
      return Object.fromEntries(members);
    }
    return this.#pick(this.scalars)();
  }
}
