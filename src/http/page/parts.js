// Small parts that the page is made of. Text from peers goes in as text, never as HTML.

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('aria-hidden', 'true');
  svg.append(document.createElementNS(svg.namespaceURI, 'use'));
  svg.firstChild.setAttribute('href', `#i-${name}`);
  return svg;
}

export const setIcon = (button, name) => button.querySelector('use').setAttribute('href', `#i-${name}`);

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function copyButton(what, text) {
  const button = element('button', { className: 'icon copy', type: 'button', title: 'Copy' }, icon('copy'));
  button.setAttribute('aria-label', `Copy ${what}`);
  button.addEventListener('click', async () => {
    const isCopied = await copy(text());
    setIcon(button, isCopied ? 'done' : 'copy');
    button.classList.toggle('done', isCopied);
    setTimeout(() => {
      setIcon(button, 'copy');
      button.classList.remove('done');
    }, 1500);
  });
  return button;
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages that came by http have no clipboard; selecting and copying still works.
    const focused = document.activeElement;
    const field = element('textarea', { value: text, className: 'visually-hidden' });
    document.body.append(field);
    field.select();
    const isCopied = document.execCommand('copy');
    field.remove();
    focused?.focus();
    return isCopied;
  }
}

export function copyRow(label, text) {
  return element('div', { className: 'row' },
    element('div', { className: 'row-text' },
      element('span', { className: 'row-label', textContent: label }),
      element('code', { textContent: text, title: text })),
    copyButton(label, () => text));
}

/** Tiles of figures: [key, label, value, isBad]. A null value shows a dash. */
export function showFigures(list, figures) {
  for (const [key, label, value, isBad = false] of figures) {
    let tile = list.querySelector(`[data-key="${key}"]`);
    if (!tile) {
      tile = element('div', {}, element('dt', { textContent: label }), element('dd'));
      tile.dataset.key = key;
      tile.dataset.testid = `stat-${key}`;
      list.insertBefore(tile, list.querySelector('.graph'));
    }
    setText(tile.lastChild, value ?? '–');
    tile.lastChild.title = value ?? '';
    tile.classList.toggle('bad', isBad);
  }
}
