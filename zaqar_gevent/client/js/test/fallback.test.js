// Which transport, and when to try again: the state machine alone, with a clock that is stepped.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff, Fallback, Pace } from '../zaqar.js';

class Moment {
  at = 100;
  now = () => this.at;
}

function machine(transport = 'auto', random = () => 1) {
  const clock = new Moment();
  const fallback = new Fallback({ transport, clock, random });
  return { clock, fallback };
}

function attempt(fallback) {
  assert.equal(fallback.waitSeconds(), 0);
  fallback.attempting();
  assert.equal(fallback.waitSeconds(), null);
}

test('the WebSocket is tried at once', () => {
  const { fallback } = machine();
  assert.equal(fallback.state, 'connecting');
  attempt(fallback);
  fallback.opened();
  assert.equal(fallback.state, 'websocket');
  assert.equal(fallback.waitSeconds(), null);
});

for (const outcome of ['refused', 'filtered']) {
  test(`a handshake that is ${outcome} leads to REST, and to another try every 60 s`, () => {
    const { clock, fallback } = machine();
    attempt(fallback);
    fallback[outcome]();
    for (let round = 0; round < 3; round += 1) {
      assert.equal(fallback.state, 'polling');
      assert.equal(fallback.waitSeconds(), 60);
      clock.at += 60;
      attempt(fallback);
      fallback[outcome]();
    }
    clock.at += 60;
    attempt(fallback);
    fallback.opened();
    assert.equal(fallback.state, 'websocket');
  });
}

test('connections that are lost three times in 60 s lead to REST', () => {
  const { clock, fallback } = machine();
  for (const expected of ['connecting', 'connecting', 'polling']) {
    fallback.attempting();
    fallback.opened();
    clock.at += 29;
    fallback.lost();
    assert.equal(fallback.state, expected);
    if (expected === 'connecting') assert.ok(fallback.waitSeconds() <= 0.1);
  }
  assert.equal(fallback.waitSeconds(), 60);
});

test('connections that are lost now and then are opened again', () => {
  const { clock, fallback } = machine();
  for (let round = 0; round < 10; round += 1) {
    fallback.attempting();
    fallback.opened();
    clock.at += 31;
    fallback.lost();
    assert.equal(fallback.state, 'connecting');
  }
});

test('a server that says when to come back is believed, and nothing is held against it', () => {
  const { clock, fallback } = machine();
  for (let round = 0; round < 10; round += 1) {
    fallback.attempting();
    fallback.opened();
    clock.at += 2;
    fallback.lost(326);
    assert.equal(fallback.state, 'connecting');
    assert.ok(Math.abs(fallback.waitSeconds() - 0.326) < 1e-9);
    clock.at += 1;
  }
});

test('a server that cannot be reached at all is tried on, ever more rarely', () => {
  const { clock, fallback } = machine();
  const waits = [];
  for (let round = 0; round < 12; round += 1) {
    fallback.attempting();
    fallback.unreachable();
    assert.equal(fallback.state, 'connecting');
    waits.push(Number(fallback.waitSeconds().toFixed(6)));
    clock.at += fallback.waitSeconds();
  }
  assert.deepEqual(waits, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30, 30]);
});

test('a connection that lasted a second begins the waits anew, one that did not does not', () => {
  const { clock, fallback } = machine('websocket');
  const lose = (after) => {
    fallback.attempting();
    fallback.opened();
    clock.at += after;
    fallback.lost();
    return Number(fallback.waitSeconds().toFixed(6));
  };
  assert.deepEqual([lose(0.5), lose(0.5), lose(0.5), lose(1), lose(0.5)], [0.1, 0.2, 0.4, 0.1, 0.2]);
});

test('while REST is used, a try that ends in whatever way changes nothing', () => {
  const { clock, fallback } = machine();
  fallback.attempting();
  fallback.refused();
  for (const outcome of ['lost', 'unreachable', 'refused', 'filtered']) {
    clock.at += 60;
    attempt(fallback);
    fallback[outcome]();
    assert.equal(fallback.state, 'polling');
    assert.equal(fallback.waitSeconds(), 60);
  }
});

test('with the WebSocket alone there is no REST', () => {
  const { fallback } = machine('websocket');
  for (const outcome of ['refused', 'filtered', 'lost', 'lost', 'lost', 'unreachable']) {
    fallback.attempting();
    fallback[outcome]();
    assert.equal(fallback.state, 'connecting');
    assert.ok(fallback.waitSeconds() > 0);
  }
});

test('with REST alone no WebSocket is tried', () => {
  const { fallback } = machine('rest');
  assert.equal(fallback.state, 'polling');
  assert.equal(fallback.waitSeconds(), null);
});

test('what is closed stays so', () => {
  const { fallback } = machine();
  fallback.close();
  for (const event of ['opened', 'refused', 'filtered', 'unreachable', 'lost']) {
    fallback[event]();
    assert.equal(fallback.state, 'closed');
    assert.equal(fallback.waitSeconds(), null);
  }
});

test('waits are at random between nothing and their most', () => {
  const waits = [0, 0.25, 0.999].map((number) => new Backoff(() => number).next());
  assert.deepEqual(waits.map((wait) => Number(wait.toFixed(4))), [0, 0.025, 0.0999]);
});

test('pauses grow from 0.1 to 2 s, and begin anew when something comes', () => {
  const pace = new Pace();
  const pauses = Array.from({ length: 6 }, () => pace.pause());
  assert.deepEqual(pauses, [0.1, 0.2, 0.4, 0.8, 1.6, 2]);
  pace.found();
  assert.equal(pace.pause(), 0.1);
});

test('a server is waited on for less where something on the way does not let requests last', () => {
  const pace = new Pace();
  assert.equal(pace.wait(20), 20);
  assert.equal(pace.wait(0), 0);
  pace.cut(10);
  assert.equal(pace.wait(20), 5);
  for (let round = 0; round < 5; round += 1) pace.cut(1);
  assert.equal(pace.wait(20), 1);
});
