// Clients by number, for a test that drives them in Node or in a page.

import * as zaqar from '../../zaqar_gevent/client/js/zaqar.js';
import { scenario as run } from '../../zaqar_gevent/client/js/test/scenario.js';

const clients = [];
const histories = [];

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

// Begins to connect; the number of the client.
export function open(url, options) {
  const began = performance.now();
  const history = [];
  const client = new zaqar.Client(url, options);
  client.addEventListener('state', ({ state }) => {
    history.push([Math.round(performance.now() - began) / 1000, state]);
  });
  histories.push(history);
  return clients.push(client) - 1;
}

export const scenario = (number) => run(clients[number], 'scenario', zaqar);

export const stateOf = (number) => clients[number].state;

export const close = (number) => clients[number].close();

// What the client's state has been, as [seconds since it began, state].
export const historyOf = (number) => histories[number];

// How many seconds pass until a client is in this state.
async function secondsUntil(number, state, seconds) {
  const began = performance.now();
  const passed = () => (performance.now() - began) / 1000;
  while (clients[number].state !== state) {
    if (passed() > seconds) throw new Error(`${clients[number].state}, not ${state}, after ${seconds} s`);
    await sleep(0.01);
  }
  return passed();
}

// The same of several clients at once, each given as [number, state, seconds].
export const secondsOfEach = (awaited) =>
  Promise.all(awaited.map((one) => secondsUntil(...one)));

// Numbers that a client posts to a queue, and receives from it.
class Traffic {
  posted = 0;
  received = [];
  #isOver = false;

  constructor(client, { pause, batch }) {
    this.queue = client.queue('numbers');
    this.subscription = this.queue.subscribe({ marker: '' });
    this.posting = this.#post(pause, batch);
    this.reading = this.#read();
  }

  async #post(pause, batch) {
    while (!this.#isOver) {
      const numbers = Array.from({ length: batch }, (_, index) => this.posted + index);
      await this.queue.post(numbers, { ttl: 600 });
      this.posted += batch;
      await sleep(pause);
    }
  }

  async #read() {
    for await (const message of this.subscription) this.received.push(message.body);
  }

  // Posts no more, and waits for what is to come.
  async finish(seconds) {
    this.#isOver = true;
    await this.posting;
    const until = performance.now() + seconds * 1000;
    while (this.received.length < this.posted && performance.now() < until) await sleep(0.05);
    // What comes twice would come about now.
    await sleep(0.2);
    await this.subscription.close();
    await this.reading;
    return { posted: this.posted, received: this.received };
  }
}

const traffics = new Map();

export function startTraffic(number, options) {
  traffics.set(number, new Traffic(clients[number], options));
}

export const finishTraffic = (number, seconds) => traffics.get(number).finish(seconds);
