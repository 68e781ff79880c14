// Looking again and again, while somebody looks at the page.

/**
 * Call `look` now and `seconds` after each time it is done, until `signal` is aborted; not while the
 * page is hidden. `look` deals with its own errors.
 */
export async function keepLooking(seconds, signal, look) {
  while (!signal.aborted) {
    await look();
    await pause(seconds, signal);
    await whileHidden(signal);
  }
}

function pause(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

function whileHidden(signal) {
  if (!document.hidden) {
    return null;
  }
  return new Promise((resolve) => {
    document.addEventListener('visibilitychange', resolve, { once: true, signal });
    signal.addEventListener('abort', resolve);
  });
}
