// The events that a client dispatches.

// A subscription begins again with the oldest message: the store of the server is another one by now.
// marker: the one that it does not know. error: what the server said.
export class RestartEvent extends Event {
  constructor(queueName, marker, error) {
    super('restart');
    Object.assign(this, { queueName, marker, error });
  }
}

// What the client's state is now and was before, and why.
export class StateEvent extends Event {
  constructor(state, previous, reason = null) {
    super('state');
    Object.assign(this, { state, previous, reason });
  }
}
