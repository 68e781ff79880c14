// Light or dark: as the system says, or as was chosen here. It runs before the page is drawn, so that
// a page that was chosen to be dark is never seen light.

(() => {
  const KEY = 'zaqar-console-theme';

  function chosen() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      // Storage may be forbidden: then the choice lasts as long as the page.
      return null;
    }
  }

  function isDark() {
    const choice = document.documentElement.dataset.theme;
    if (choice) {
      return choice === 'dark';
    }
    return matchMedia('(prefers-color-scheme: dark)').matches;
  }

  function choose(theme) {
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // As above.
    }
  }

  const before = chosen();
  if (before === 'dark' || before === 'light') {
    document.documentElement.dataset.theme = before;
  }
  globalThis.zaqarTheme = { isDark, toggle: () => choose(isDark() ? 'light' : 'dark') };
})();
