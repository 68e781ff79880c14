// What the client says where there is no connection to be had.

import { Client } from '../../zaqar_gevent/client/js/zaqar.js';

// The message of the error that the first request ends with, its kind, and what Node said below it.
export const tell = async (url, options) => {
  const client = new Client(url, { project: 'demo', timeout: 4, ...options });
  try {
    await client.queue('orders').post(1);
    return { message: '', name: '' };
  } catch (error) {
    return { message: error.message, name: error.constructor.name };
  } finally {
    await client.close();
  }
};
