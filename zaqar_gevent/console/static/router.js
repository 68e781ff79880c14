// Which view the address shows.

import { showFlavors } from './views/flavors.js';
import { showList } from './views/list.js';
import { showPools } from './views/pools.js';
import { showResource } from './views/resource.js';
import { KINDS } from './resource.js';
import { element, replace } from './elements.js';

const SECTIONS = [
  ['queues', 'Queues'],
  ['topics', 'Topics'],
];
const ADMIN_SECTIONS = [
  ['pools', 'Pools'],
  ['flavors', 'Flavors'],
];

/** Show what the address says, now and whenever it changes or the session has another client. */
export function route(session) {
  const main = document.getElementById('main');
  let leaving = new AbortController();
  let shown = null;

  function show() {
    const [section, name, tab] = parse(location.hash);
    const isFirst = shown === null;
    const followed = document.activeElement?.getAttribute('href');
    shown = location.hash;
    leaving.abort();
    leaving = new AbortController();
    markSection(section);
    const view = viewOf(section, name, tab, session, leaving.signal);
    document.title = `${view.title} · Zaqar console`;
    replace(main, view.node);
    if (!isFirst && !document.querySelector('dialog[open]')) {
      moveFocus(main, followed);
    }
    scrollTo(0, 0);
    view.start();
  }

  addEventListener('hashchange', show);
  session.addEventListener('client', () => {
    offerSections(session, SECTIONS);
    findAdminSections(session);
    show();
  });
}

/** Focus the same link in the new view, where one was followed that is there still; else the view. */
function moveFocus(main, followed) {
  const links = [...document.querySelectorAll('a[aria-current]')];
  const link = links.find((one) => one.getAttribute('href') === followed);
  (link ?? main).focus({ preventScroll: true });
}

function parse(hash) {
  const parts = hash.replace(/^#\/?/, '').split('/');
  return parts.map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      // A stray percent sign: what was typed is what is meant.
      return part;
    }
  });
}

function viewOf(section, name, tab, session, signal) {
  const kind = Object.hasOwn(KINDS, section) ? section : 'queues';
  if (section === 'pools') {
    return showPools(session, signal);
  }
  if (section === 'flavors') {
    return showFlavors(session, signal);
  }
  return name ? showResource(session, signal, kind, name, tab) : showList(session, signal, kind);
}

function offerSections(session, sections) {
  const links = sections.map(([section, label]) =>
    element('a', { href: `#/${section}`, 'data-section': section }, label),
  );
  replace(document.getElementById('sections'), links);
  markSection(parse(location.hash)[0]);
}

function markSection(section) {
  for (const link of document.getElementById('sections').children) {
    const isIt = link.dataset.section === (section || 'queues');
    link.toggleAttribute('data-current', isIt);
    if (isIt) {
      link.setAttribute('aria-current', 'page');
    } else {
      link.removeAttribute('aria-current');
    }
  }
}

/** Pools and flavors are there in admin mode only, for those who may see them. */
async function findAdminSections(session) {
  const { client } = session;
  try {
    await session.call('pool_list', { limit: 1 });
  } catch {
    // Not offered, or not for this caller: either way there is nothing to show.
    return;
  }
  if (client === session.client) {
    offerSections(session, [...SECTIONS, ...ADMIN_SECTIONS]);
  }
}
