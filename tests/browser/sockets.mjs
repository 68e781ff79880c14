// WebSockets by number, for a test that asks for one thing after the other. What happens on each is
// kept until it is asked for.

const connections = [];

const toBytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
const toBase64 = (buffer) =>
  btoa(Array.from(new Uint8Array(buffer), (byte) => String.fromCharCode(byte)).join(''));

class Connection {
  #happened = [];
  #awaited = null;

  constructor(url, subprotocols) {
    this.socket = new WebSocket(url, subprotocols);
    this.socket.binaryType = 'arraybuffer';
    this.socket.onopen = () => {
      const { protocol, extensions } = this.socket;
      this.#happens({ type: 'open', protocol, extensions });
    };
    this.socket.onmessage = ({ data }) =>
      this.#happens(
        typeof data === 'string'
          ? { type: 'text', text: data }
          : { type: 'binary', base64: toBase64(data) },
      );
    this.socket.onerror = () => this.#happens({ type: 'error' });
    this.socket.onclose = ({ code, reason, wasClean }) =>
      this.#happens({ type: 'close', code, reason, wasClean });
  }

  next(seconds) {
    if (this.#happened.length) return Promise.resolve(this.#happened.shift());
    return new Promise((resolve, reject) => {
      const fail = () => reject(new Error(`nothing happened within ${seconds} s`));
      const timer = setTimeout(fail, seconds * 1000);
      this.#awaited = (event) => {
        clearTimeout(timer);
        resolve(event);
      };
    });
  }

  #happens(event) {
    const awaited = this.#awaited;
    this.#awaited = null;
    if (awaited) awaited(event);
    else this.#happened.push(event);
  }
}

// Begins to connect; the number of the WebSocket.
export const open = (url, subprotocols) =>
  connections.push(new Connection(url, subprotocols)) - 1;

// What happens next on it.
export const next = (number, seconds) => connections[number].next(seconds);

export const send = (number, base64, binary) => {
  const payload = toBytes(base64);
  connections[number].socket.send(binary ? payload : new TextDecoder().decode(payload));
};

export const close = (number, code) => connections[number].socket.close(code);
