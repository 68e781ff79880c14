// Answers that no Zaqar gives: of another server at the URL, or of something on the way to it.

const MAX_QUOTED_CHARACTERS = 160;
// What gateways and proxies answer in their own words, though there is a Zaqar behind them.
const OF_INTERMEDIARIES = new Set([401, 403, 407, 408, 413, 429, 431]);
const NOT_IMPLEMENTED = 501;

// Whether an answer that is not in JSON says that there is no Zaqar.
export const isForeign = (status) =>
  status === NOT_IMPLEMENTED || (status < 500 && !OF_INTERMEDIARIES.has(status));

// What to tell of such an answer. url: of the server.
export function describeForeign(url, status, text) {
  const said = text.trim() ? `: ${quote(text)}` : ' with nothing in it';
  return `The server at ${url} is no Zaqar: it answered ${status}${said}`;
}

// The beginning of what was answered, in one line that can be printed.
function quote(text) {
  const line = text.slice(0, 2000).trim().replace(/\s+/g, ' ').replace(/\p{C}/gu, '?');
  return line.length > MAX_QUOTED_CHARACTERS ? `${line.slice(0, MAX_QUOTED_CHARACTERS)}...` : line;
}
