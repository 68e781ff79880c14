// How long before its end a token is replaced, in seconds; or at nine tenths of its time.
const RENEW_SECONDS = 60;

// The token that getToken gives, called again before it ends, or when it is refused.
export class Credentials {
  #getToken;
  #clock;
  #asking = null;

  #renewAt = null;

  token = null;

  constructor({ token = null, getToken = null, clock }) {
    this.token = token;
    this.#getToken = getToken;
    this.#clock = clock;
  }

  get canRenew() {
    return this.#getToken !== null;
  }

  // The seconds until it should be replaced; null where that is not known.
  get secondsLeft() {
    return this.#renewAt === null ? null : Math.max(0, (this.#renewAt - this.#clock.time()) / 1000);
  }

  async current() {
    if (this.canRenew && (this.token === null || this.secondsLeft === 0)) await this.renew();
    return this.token;
  }

  // Asks for another token; once, however many want it.
  async renew() {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
    });
    await this.#asking;
  }

  async #ask() {
    const given = await this.#getToken();
    const { token, expiresAt = null } = typeof given === 'string' ? { token: given } : given;
    this.replace(token, expiresAt);
  }

  // The token is over.
  expire() {
    if (this.canRenew) this.#renewAt = 0;
  }

  // expiresAt: a Date, what makes one, or null where it is not known.
  replace(token, expiresAt = null) {
    this.token = token;
    this.#renewAt = null;
    if (expiresAt === null) return;
    const end = new Date(expiresAt).getTime();
    const left = end - this.#clock.time();
    this.#renewAt = end - Math.min(RENEW_SECONDS * 1000, left / 10);
  }
}
