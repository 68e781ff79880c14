// How the page is connected: shown at the top, and changed in a dialog.

import { FieldError, ask } from './dialogs.js';
import { button, choice, element, field, replace } from './elements.js';
import { problem } from './format.js';
import { textField } from './inputs.js';
import { ENCODINGS, TRANSPORTS, newClientId } from './session.js';

const STATES = {
  connecting: 'Connecting…',
  websocket: 'WebSocket',
  polling: 'Polling',
  closed: 'Closed',
  refused: 'No access',
};
const PATIENCE_SECONDS = 3;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

const isUnserved = ({ state }) => state === 'connecting' || state === 'refused';

/** Show the state of `session` in the top bar, and let it be changed there. */
export function showConnection(session) {
  const pill = document.getElementById('connection');
  const banner = document.getElementById('banner');
  let watched = null;
  function update() {
    const state = session.refusal ? 'refused' : session.client.state;
    // REST speaks JSON, whatever was chosen for the WebSocket.
    const encoding = state === 'polling' ? 'json' : session.client.encoding;
    pill.dataset.state = state;
    const isOpen = state === 'websocket' || state === 'polling';
    replace(
      pill,
      element('span', { class: 'dot', 'aria-hidden': 'true' }),
      element('span', { class: 'sr' }, 'Connection: '),
      element('span', { class: 'pill-state' }, STATES[state] ?? state),
      isOpen && element('span', { class: 'pill-encoding' }, ENCODINGS[encoding] ?? encoding),
      element('span', { class: 'pill-project' }, session.settings.project),
    );
    if (isOpen && banner.dataset.about === 'server') {
      hide();
    } else if (isUnserved(session.client)) {
      watch(session.client);
    }
  }

  /** Say it when connecting takes long, and when the server will not have it. */
  async function watch(client) {
    if (watched === client) {
      return;
    }
    watched = client;
    while (client === session.client && isUnserved(client) && !session.refusal) {
      try {
        await client.capabilities({ timeout: PATIENCE_SECONDS });
      } catch (error) {
        session.consider(error);
        if (isUnserved(client) && !session.refusal) {
          const why = error.status ? `refuses: ${problem(error)}.` : 'does not answer.';
          tell('server', `The server ${why} The console keeps trying.`);
          await new Promise((resolve) => setTimeout(resolve, PATIENCE_SECONDS * 1000));
        }
      }
    }
    watched = null;
  }

  function tell(about, text, ...actions) {
    if (banner.dataset.about === 'refusal') {
      return;
    }
    banner.dataset.about = about;
    replace(banner, element('p', {}, text), actions);
  }

  function hide() {
    delete banner.dataset.about;
    replace(banner);
  }

  session.addEventListener('state', update);
  session.addEventListener('client', hide);
  session.addEventListener('refused', () => {
    const text = session.token
      ? 'The token is not accepted: it may be wrong, expired or of another project.'
      : 'This server wants a token.';
    tell('refusal', text, button('Enter a token', () => change(session), 'small'));
  });
  pill.addEventListener('click', () => change(session));
}

/** Ask for project, client, token, transport and encoding, and connect by them. */
function change(session) {
  const { settings } = session;
  const project = textField('Project', { value: settings.project, required: true });
  const clientId = textField('Client-ID', {
    value: settings.clientId,
    required: true,
    class: 'code',
    hint: 'A UUID. A client is not shown its own messages when it lists a queue.',
  });
  const renew = button('New', () => {
    clientId.input.value = newClientId();
  }, 'small');
  clientId.input.after(renew);
  const token = textField('Token', {
    value: session.token,
    type: 'password',
    class: 'code',
    autocomplete: 'off',
    hint: "Where the server asks Keystone. It is kept until the page is closed, and nowhere else; the project is the token's.",
  });
  const roles = textField('Roles', {
    value: settings.roles,
    hint: 'Where the server asks nobody: for example admin.',
  });
  const transport = field('Transport', choice(Object.entries(TRANSPORTS), settings.transport));
  const encoding = field('Encoding', choice(Object.entries(ENCODINGS), settings.encoding));
  return ask({
    title: 'Connection',
    submit: 'Connect',
    content: [
      element('dl', { class: 'facts' }, facts(session)),
      project.row,
      clientId.row,
      token.row,
      roles.row,
      element('div', { class: 'pair' }, transport.row, encoding.row),
    ],
    act: async () => {
      const chosen = {
        project: project.read(),
        clientId: readUUID(clientId),
        roles: roles.read(),
        transport: transport.input.value,
        encoding: encoding.input.value,
      };
      session.open(chosen, token.read());
    },
  });
}

function readUUID(field) {
  const text = field.read();
  if (!UUID.test(text)) {
    throw new FieldError(field, 'A UUID is wanted, as “New” makes one.');
  }
  return text;
}

function facts(session) {
  const server = element('dd', {}, '…');
  const delay = element('dd', {}, '…');
  session.client.capabilities().then(
    (capabilities) => replace(server, capabilities?.server ?? 'unknown'),
    () => replace(server, 'unknown'),
  );
  const started = performance.now();
  session.client.ping().then(
    () => replace(delay, `${(performance.now() - started).toFixed(1)} ms`),
    () => replace(delay, 'no answer'),
  );
  return [
    element('div', {}, element('dt', {}, 'Server'), server),
    element('div', {}, element('dt', {}, 'Answers in'), delay),
  ];
}
