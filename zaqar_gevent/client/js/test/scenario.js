// What every client does, and the transcript that each must give of it: tests/client/scenario.py in
// JavaScript. Runs in Node and in a page.

const body = (number) => ({ n: number, text: `é${number}` });

function numberOf(message) {
  const number = message.body.n;
  if (message.body.text !== `é${number}`) throw new Error(`a body is not as it was posted: ${number}`);
  return number;
}

async function counts(queue) {
  const { claimed, free, total } = (await queue.stats()).messages;
  return { claimed, free, total };
}

async function take(stream, count) {
  const taken = [];
  while (taken.length < count) {
    const { value } = await stream.next({ timeout: 30 });
    taken.push(value);
  }
  return taken;
}

async function acknowledged(consumer, count) {
  const done = [];
  for await (const message of consumer) {
    await message.ack();
    done.push(numberOf(message));
    if (done.length === count) return done;
  }
  return done;
}

// APIError: the class of the client's module.
async function refusals(client, queue, APIError) {
  const asked = [
    () => queue.get('no-such-message'),
    () => queue.post('brief', { ttl: 1 }),
    () => client.call('claim_get', { queue_name: queue.name, claim_id: 'no-such-claim' }),
  ];
  const refused = [];
  for (const ask of asked) {
    try {
      await ask();
    } catch (error) {
      if (!(error instanceof APIError)) throw error;
      refused.push([error.status, error.code]);
    }
  }
  return refused;
}

export async function scenario(client, name, { APIError }) {
  const queue = client.queue(name);
  const transcript = [];
  const record = (step, result) => transcript.push([step, result]);

  record('create', [await queue.create({ _default_message_ttl: 600 }), await queue.create()]);
  const ids = [];
  for (let start = 0; start < 1000; start += 50) {
    ids.push(...(await queue.post(Array.from({ length: 50 }, (_, index) => body(start + index)))));
  }
  record('post', [ids.length, new Set(ids).size]);
  const listed = [];
  for await (const message of queue.messages()) listed.push(numberOf(message));
  record('list', listed);
  const claim = await queue.claim({ limit: 10, ttl: 60 });
  record('claim', claim.messages.map(numberOf));
  for (const message of claim) await message.delete();
  record('delete', await counts(queue));
  const subscription = queue.subscribe({ marker: '' });
  const pushed = await take(subscription, 990);
  await queue.post(body(1000));
  pushed.push(...(await take(subscription, 1)));
  await subscription.close();
  record('subscribe', pushed.map(numberOf));
  const consumed = await acknowledged(queue.consume({ credit: 10 }), 991);
  record('consume', consumed.sort((one, other) => one - other));
  record('stats', await counts(queue));
  record('errors', await refusals(client, queue, APIError));
  record('delete', await queue.delete());
  return transcript;
}
