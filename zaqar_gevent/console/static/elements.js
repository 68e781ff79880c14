// Elements of a page. Whatever comes from outside becomes text nodes and attribute values, never
// markup: there is no other way to make elements in the console.

const SVG = 'http://www.w3.org/2000/svg';

/**
 * Make an element.
 *
 * properties: attributes by their names; `on...` with a function listens; true is an empty attribute;
 * false, null and undefined are left out. children: nodes, texts, and lists of them; nothing for null.
 */
export function element(name, properties = {}, ...children) {
  return fill(document.createElement(name), properties, children);
}

/** The same for SVG. */
export function drawing(name, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, name), properties, children);
}

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) {
      node.addEventListener(name.slice(2), value);
    } else if (value === true) {
      node.setAttribute(name, '');
    } else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value);
    }
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) {
      node.append(child);
    }
  }
}

/** Put `children` in place of what is in `node`. */
export function replace(node, ...children) {
  node.replaceChildren();
  append(node, children);
}

/** Change a text only where it differs, so that nothing is announced or laid out in vain. */
export function setText(node, text) {
  if (node.textContent !== text) {
    node.textContent = text;
  }
}

let fields = 0;

/**
 * A labelled control: `{row, input, complain(text)}`.
 *
 * control: an input, textarea or select. hint: a text below it.
 */
export function field(label, control, hint = '') {
  fields += 1;
  const id = `field-${fields}`;
  control.id = id;
  const problem = element('p', { class: 'problem', id: `${id}-problem` });
  const described = [`${id}-problem`];
  if (hint) {
    described.push(`${id}-hint`);
  }
  control.setAttribute('aria-describedby', described.join(' '));
  const row = element(
    'div',
    { class: 'field' },
    element('label', { for: id }, label),
    control,
    hint && element('p', { class: 'hint', id: `${id}-hint` }, hint),
    problem,
  );
  function complain(text) {
    setText(problem, text);
    control.setAttribute('aria-invalid', String(Boolean(text)));
    if (text) {
      control.focus();
    }
  }
  return { row, input: control, complain };
}

export function button(label, onclick, kind = '') {
  return element('button', { type: 'button', class: `button ${kind}`.trim(), onclick }, label);
}

/** A place for what went wrong, which is read out when it is filled. */
export function alertPlace() {
  return element('p', { class: 'problem', role: 'alert' });
}

/** A select of `[value, label]` pairs. */
export function choice(pairs, value) {
  const options = pairs.map(([option, label]) =>
    element('option', { value: option, selected: option === value }, label),
  );
  return element('select', {}, options);
}
