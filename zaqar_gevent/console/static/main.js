// The console: put together and started.

import { showConnection } from './connection.js';
import { drawing, replace } from './elements.js';
import { route } from './router.js';
import { Session } from './session.js';

const MOON = 'M13.5 12.1A6 6 0 0 1 7.9 3.6a6 6 0 1 0 8 8 6 6 0 0 1-2.4.5z';
const SUN =
  'M10 6.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7zM10 1v3M10 16v3M1 10h3M16 10h3M3.6 3.6l2.2 2.2M14.2 14.2l2.2 2.2M3.6 16.4l2.2-2.2M14.2 5.8l2.2-2.2';

function showTheme() {
  const button = document.getElementById('theme');
  const theme = globalThis.zaqarTheme;
  function update() {
    const isDark = theme.isDark();
    button.setAttribute('aria-label', isDark ? 'Switch to light' : 'Switch to dark');
    button.title = button.getAttribute('aria-label');
    replace(
      button,
      drawing(
        'svg',
        { viewBox: '0 0 20 20', width: 18, height: 18, 'aria-hidden': 'true', class: 'stroked' },
        drawing('path', { d: isDark ? SUN : MOON }),
      ),
    );
  }
  button.addEventListener('click', () => {
    theme.toggle();
    update();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', update);
  update();
}

/** The address says which view is shown, so a link within the page must not change it. */
function serveSkipLink() {
  document.querySelector('.skip').addEventListener('click', (event) => {
    event.preventDefault();
    document.getElementById('main').focus();
  });
}

showTheme();
serveSkipLink();
const session = new Session();
showConnection(session);
route(session);
session.open();
