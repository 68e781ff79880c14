// The types are those of the module.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import * as zaqar from '../zaqar.js';

test('every export has a type, and nothing else is said to be one', async () => {
  const types = await readFile(new URL('../zaqar.d.ts', import.meta.url), 'utf8');
  const declared = [...types.matchAll(/^export (?:class|const|function) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(declared.sort(), Object.keys(zaqar).sort());
});

test('every method of a class is declared, and is there', async () => {
  const types = await readFile(new URL('../zaqar.d.ts', import.meta.url), 'utf8');
  const { Client, Claim, Consumer, Message, Queue, Subscription, Topic } = zaqar;
  const bases = { Queue: 'Channel', Topic: 'Channel', Subscription: 'Stream', Consumer: 'Stream' };
  for (const kind of [Client, Claim, Consumer, Message, Queue, Subscription, Topic]) {
    const said = [kind.name, bases[kind.name]].flatMap((name) => methodsIn(types, name));
    assert.deepEqual(new Set(said), new Set(methodsOf(kind.prototype)), kind.name);
  }
});

// The methods that the declaration of a class has.
function methodsIn(types, name) {
  const [, members = ''] = types.match(new RegExp(`class ${name} [^{]*\\{\\n([\\s\\S]*?)\\n\\}`)) ?? [];
  const methods = [...members.matchAll(/^ {2}(\w+)\(/gm)].map(([, method]) => method);
  return methods.filter((method) => !['constructor', 'addEventListener', 'removeEventListener'].includes(method));
}

// The public methods of an object, its bases' included, but not those of every object.
function methodsOf(prototype) {
  const isOurs = prototype !== Object.prototype && prototype !== EventTarget.prototype;
  if (!isOurs || prototype === null) return [];
  const own = Object.entries(Object.getOwnPropertyDescriptors(prototype))
    .filter(([name, { value }]) => typeof value === 'function' && /^[a-z]/.test(name))
    .map(([name]) => name)
    .filter((name) => name !== 'constructor');
  return [...own, ...methodsOf(Object.getPrototypeOf(prototype))];
}
