// Builds `zaqar.js`, the one file that users load, from the modules in `src`.

export default {
  input: 'src/index.js',
  output: {
    file: 'zaqar.js',
    format: 'es',
    banner: "// zaqar_gevent's client for browsers and Node. Built from the modules in src; do not edit. Apache-2.0.\n",
  },
  onwarn: (warning) => {
    throw new Error(warning.message);
  },
};
