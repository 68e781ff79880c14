// One queue or topic: its counts, and what can be done with it in tabs.

import { ask, confirm } from '../dialogs.js';
import { button, element, replace, setText } from '../elements.js';
import { count, duration, problem, rate } from '../format.js';
import { remembered } from '../memory.js';
import { notify } from '../notices.js';
import { keepLooking } from '../polling.js';
import { Rates } from '../rates.js';
import { KINDS, Resource, pageOf } from '../resource.js';
import { sparkline } from '../sparkline.js';
import { showClaims } from './claims.js';
import { showMessages } from './messages.js';
import { showMetadata } from './metadata.js';
import { showSubscriptions } from './subscriptions.js';

const LOOK_SECONDS = 1;
const SPARK = [240, 36];
const TABS = {
  messages: ['Messages', showMessages],
  claims: ['Claims', showClaims],
  subscriptions: ['Subscriptions', showSubscriptions],
  metadata: ['Metadata', showMetadata],
};

/** The view of one queue or topic, with one of its tabs open. */
export function showResource(session, signal, section, name, tab) {
  const kind = KINDS[section];
  const resource = new Resource(session, kind, name);
  const chosen = tabsOf(kind).includes(tab) ? tab : 'messages';
  const counts = new Counts(resource);
  const content = TABS[chosen][1](resource, signal, { counts });
  const actions = element(
    'div',
    { class: 'head-end' },
    button('Purge…', () => purge(resource)),
    button('Delete…', () => remove(resource, section), 'danger-outline'),
  );
  const place = element('div', {}, counts.node, tabs(kind, section, name, chosen), content.node);
  const node = element(
    'div',
    {},
    element(
      'div',
      { class: 'head' },
      element(
        'div',
        { class: 'head-title' },
        element('a', { class: 'crumb', href: `#/${section}` }, kind.title),
        element('h1', { class: 'name' }, name),
      ),
      actions,
    ),
    place,
  );

  async function start() {
    const isThere = await exists(resource, place);
    if (signal.aborted) {
      return;
    }
    actions.hidden = !isThere;
    if (isThere) {
      content.start();
      keepLooking(LOOK_SECONDS, signal, () => counts.look(signal));
    }
  }

  return { title: name, node, start };
}

/** Whether it exists; to look at what does not would make it. If not, `place` says so. */
async function exists(resource, place) {
  const { kind, name } = resource;
  const say = (text, ...more) =>
    replace(place, element('section', { class: 'panel empty' }, element('p', {}, text), more));
  const again = () => dispatchEvent(new HashChangeEvent('hashchange'));
  try {
    const isThere = await resource.exists();
    if (!isThere) {
      const create = () => resource.call('create').then(again, (error) => say(problem(error)));
      say(`There is no ${kind.name} “${name}”.`, button('Create it', create, 'primary'));
    }
    return isThere;
  } catch (error) {
    say(problem(error), button('Try again', again));
    return false;
  }
}

function tabsOf(kind) {
  return Object.keys(TABS).filter((tab) => kind.name === 'queue' || tab !== 'claims');
}

function tabs(kind, section, name, chosen) {
  const links = tabsOf(kind).map((tab) =>
    element(
      'a',
      {
        href: pageOf(section, name, tab === 'messages' ? '' : tab),
        'aria-current': tab === chosen ? 'page' : null,
      },
      TABS[tab][0],
    ),
  );
  return element('nav', { class: 'tabs', 'aria-label': `Of this ${kind.name}` }, links);
}

/**
 * The counts of a queue, and how they change.
 *
 * arrived: gives how many messages have been pushed, where a tail counts them, else null.
 */
class Counts {
  constructor(resource) {
    this.resource = resource;
    const { session, kind, name } = resource;
    this.rates = remembered(session.client, `${kind.name} ${name}`, () => new Rates());
    this.arrived = () => null;
    this.values = {};
    this.picture = sparkline(...SPARK);
    this.failure = element('p', { class: 'problem', role: 'status' });
    const value = (member, label) => {
      this.values[member] = element('dd', {}, '–');
      return element('div', {}, element('dt', { class: `of-${member}` }, label), this.values[member]);
    };
    const isQueue = resource.kind.name === 'queue';
    this.node = element(
      'section',
      { class: 'panel counts', 'aria-label': 'Counts' },
      element(
        'dl',
        {},
        value('free', 'Free'),
        isQueue && value('claimed', 'Claimed'),
        value('total', 'Total'),
        value('oldest', 'Oldest'),
        value('in', 'In /s'),
        value('out', 'Out /s'),
      ),
      this.picture.node,
      this.failure,
    );
  }

  async look(signal) {
    try {
      const stats = await this.resource.stats();
      if (!signal.aborted) {
        this.#show(stats);
        setText(this.failure, '');
      }
    } catch (error) {
      if (!signal.aborted) {
        setText(this.failure, problem(error));
      }
    }
  }

  #show(stats) {
    this.rates.add(performance.now() / 1000, stats, this.arrived());
    const current = this.rates.current();
    const { values } = this;
    for (const member of ['free', 'claimed', 'total']) {
      if (values[member]) {
        setText(values[member], count(stats[member]));
      }
    }
    setText(values.oldest, stats.oldest ? duration(stats.oldest.age) : '–');
    for (const way of ['in', 'out']) {
      setText(values[way], rate(current?.[way]));
    }
    this.picture.draw(this.rates.history());
  }
}

function purge(resource) {
  const what = resource.kind.name;
  const box = (value, label) => {
    const input = element('input', { type: 'checkbox', value, checked: value === 'messages' });
    return { input, row: element('label', { class: 'check' }, input, label) };
  };
  const boxes = [
    box('messages', 'All messages that nobody has claimed'),
    box('subscriptions', 'All subscriptions'),
  ];
  return ask({
    title: `Purge ${resource.name}?`,
    submit: 'Purge',
    danger: true,
    content: [
      element('p', {}, `The ${what} itself stays. What is removed cannot be had back.`),
      boxes.map(({ row }) => row),
    ],
    act: async () => {
      const chosen = boxes.filter(({ input }) => input.checked).map(({ input }) => input.value);
      if (chosen.length === 0) {
        throw new Error('Nothing is chosen.');
      }
      await resource.call('purge', { resource_types: chosen });
      notify(`“${resource.name}” has been purged of its ${chosen.join(' and ')}.`);
    },
  });
}

async function remove(resource, section) {
  const isDone = await confirm({
    title: `Delete ${resource.name}?`,
    text: `The ${resource.kind.name} and all its messages are lost, claimed ones too.`,
    submit: 'Delete',
    act: () => resource.call('delete'),
  });
  if (isDone) {
    notify(`“${resource.name}” has been deleted.`);
    location.hash = `#/${section}`;
  }
}
