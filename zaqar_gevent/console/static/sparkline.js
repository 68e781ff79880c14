// A small picture of what came and went.

import { drawing } from './elements.js';

/** An SVG of `width` by `height`, and a function that draws a history of rates into it. */
export function sparkline(width, height) {
  const base = drawing('line', {
    class: 'spark-base',
    x1: 0,
    x2: width,
    y1: height - 0.5,
    y2: height - 0.5,
  });
  const out = drawing('polyline', { class: 'spark-out' });
  const line = drawing('polyline', { class: 'spark-in' });
  const area = drawing('polygon', { class: 'spark-area' });
  const node = drawing(
    'svg',
    {
      class: 'spark',
      viewBox: `0 0 ${width} ${height}`,
      preserveAspectRatio: 'none',
      'aria-hidden': 'true',
      focusable: 'false',
    },
    base,
    area,
    out,
    line,
  );

  function draw(history, most = 60) {
    const highest = Math.max(1e-9, ...history.map((look) => Math.max(look.in, look.out)));
    const step = width / (most - 1);
    const start = width - (history.length - 1) * step;
    const points = (member) =>
      history
        .map((look, index) => {
          const y = height - 1 - (look[member] / highest) * (height - 2);
          return `${(start + index * step).toFixed(1)},${y.toFixed(1)}`;
        })
        .join(' ');
    // Where nothing came or went the base line says so.
    const pointsOf = (member) =>
      history.some((look) => look[member] > 0) ? points(member) : '';
    line.setAttribute('points', pointsOf('in'));
    out.setAttribute('points', pointsOf('out'));
    area.setAttribute(
      'points',
      history.length > 1 ? `${start.toFixed(1)},${height} ${points('in')} ${width},${height}` : '',
    );
  }

  return { node, draw };
}
