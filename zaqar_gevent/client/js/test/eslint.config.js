// What the sources are held to.

const rules = {
  'no-undef': 'error',
  'no-unused-vars': ['error', { argsIgnorePattern: '^_', ignoreRestSiblings: true }],
  'no-unused-private-class-members': 'error',
  'no-constant-condition': ['error', { checkLoops: false }],
  'no-unreachable': 'error',
  'no-fallthrough': 'error',
  'no-dupe-keys': 'error',
  'no-self-assign': 'error',
  'no-unsafe-finally': 'error',
  'no-empty': 'error',
  'no-var': 'error',
  'prefer-const': 'error',
  eqeqeq: 'error',
  complexity: ['error', 15],
  'max-lines-per-function': ['error', { max: 40 }],
};

const names = (...list) => Object.fromEntries(list.map((name) => [name, 'readonly']));

// What browsers and Node have in common, and nothing of either alone.
const common = names(
  ...['AbortController', 'AbortSignal', 'Event', 'EventTarget', 'TextDecoder', 'TextEncoder', 'URL'],
  ...['clearTimeout', 'console', 'globalThis', 'performance', 'queueMicrotask', 'setTimeout'],
);
const node = names('Buffer', 'URLSearchParams', 'fetch', 'process', 'setImmediate');
const browser = names('WebSocket', 'atob', 'btoa');

const latest = { ecmaVersion: 2022, sourceType: 'module' };

export default [
  { ignores: ['**/client/js/zaqar.js'] },
  { files: ['**/client/js/src/*.js'], languageOptions: { ...latest, globals: { ...common, ...names('URLSearchParams') } }, rules },
  { files: ['**/client/js/*.mjs'], languageOptions: latest, rules },
  {
    files: ['**/client/js/test/*.js'],
    languageOptions: { ...latest, globals: { ...common, ...node } },
    rules: { ...rules, 'max-lines-per-function': 'off' },
  },
  {
    files: ['**/tests/browser/*.mjs'],
    languageOptions: { ...latest, globals: { ...common, ...browser, ...names('process') } },
    rules,
  },
];
