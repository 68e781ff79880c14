// The fallback does what the vectors say, which the Python client runs as well.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import * as fallback from '../src/fallback.js';

const { Backoff, Fallback, Pace } = fallback;

// tests/client/fallback_vectors.json of the project.
const file = process.env.ZAQAR_VECTORS ?? new URL('../../../../tests/client/fallback_vectors.json', import.meta.url);
const vectors = JSON.parse(await readFile(file, 'utf8'));

// The cases of a kind that concern JavaScript.
const ours = (kind) => vectors[kind].filter(({ only = 'javascript' }) => only === 'javascript');

// The name of an event as a method here.
const method = (event) => event.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());

function near(value, expected, step) {
  if (typeof expected !== 'number') assert.equal(value, expected, JSON.stringify(step));
  else assert.ok(Math.abs(value - expected) < 1e-6, `${value} after ${JSON.stringify(step)}`);
}

// Calls the event of a step, and checks what it returns.
function perform(machine, step) {
  if (step.event === undefined) return;
  const returned = machine[method(step.event)](...('argument' in step ? [step.argument] : []));
  if ('returns' in step) near(returned, step.returns, step);
}

function cycle(numbers) {
  let at = 0;
  return () => numbers[at++ % numbers.length];
}

for (const { name, transport, retry_seconds: retrySeconds, random, steps } of ours('fallback')) {
  test(`fallback: ${name}`, () => {
    let now = 0;
    const machine = new Fallback({ transport, clock: { now: () => now }, random: cycle(random), retrySeconds });
    for (const step of steps) {
      now += step.after ?? 0;
      perform(machine, step);
      assert.equal(machine.state, step.state, JSON.stringify(step));
      near(machine.waitSeconds(), step.wait, step);
    }
  });
}

for (const { name, longest, steps } of ours('pace')) {
  test(`pace: ${name}`, () => {
    const pace = new Pace(longest);
    for (const step of steps) perform(pace, step);
  });
}

test('the constants are those of the vectors', () => {
  const own = Object.fromEntries(Object.entries(fallback).filter(([, value]) => typeof value === 'number'));
  const [difference, ...others] = vectors.differences;
  assert.deepEqual(others, []);
  assert.deepEqual(own, { ...vectors.constants, [difference.name]: difference.javascript });
});

test('every event is in the vectors', () => {
  for (const [kind, { prototype }] of [['fallback', Fallback], ['pace', Pace]]) {
    const events = Object.getOwnPropertyNames(prototype).filter((name) => !/^(constructor|waitSeconds)$/.test(name));
    const used = new Set(vectors[kind].flatMap(({ steps }) => steps.map(({ event }) => event)));
    used.delete(undefined);
    assert.deepEqual(new Set([...used].map(method)), new Set(events), kind);
  }
});

test('waits are at random between nothing and their longest', () => {
  const waits = [0, 0.25, 0.999].map((number) => new Backoff(() => number).next());
  assert.deepEqual(waits.map((wait) => Number(wait.toFixed(4))), [0, 0.025, 0.0999]);
});
