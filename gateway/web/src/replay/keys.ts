// Buttons and keys of the player. Keys are single: nothing on this page is typed into but the search.

import { showKeys } from '../dialogs.ts';
import { byId } from '../dom.ts';
import type { Theatre } from './theatre.ts';

type Act = (theatre: Theatre) => void;

const KEYS: Record<string, Act> = {
  ' ': (theatre) => theatre.toggle(),
  k: (theatre) => theatre.toggle(),
  ArrowLeft: (theatre) => theatre.move(-5),
  ArrowRight: (theatre) => theatre.move(5),
  'Shift+ArrowLeft': (theatre) => theatre.move(-60),
  'Shift+ArrowRight': (theatre) => theatre.move(60),
  Home: (theatre) => theatre.move(Number.NEGATIVE_INFINITY),
  End: (theatre) => theatre.move(Number.POSITIVE_INFINITY),
  '[': (theatre) => theatre.mark(-1),
  ']': (theatre) => theatre.mark(1),
  '<': (theatre) => theatre.faster(-1),
  '>': (theatre) => theatre.faster(1),
  i: (theatre) => theatre.toggleIdle(),
  '/': (theatre) => theatre.find(),
  '?': () => showKeys(),
};

const BUTTONS: Record<string, Act> = {
  play: (theatre) => theatre.toggle(),
  previous: (theatre) => theatre.mark(-1),
  next: (theatre) => theatre.mark(1),
  idle: (theatre) => theatre.toggleIdle(),
  reader: (theatre) => theatre.toggleReader(),
  help: () => showKeys(),
};

/** Keys that elements have for themselves. */
function taken(target: EventTarget | null, key: string): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement && target.type !== 'range') return true;
  if (target instanceof HTMLSelectElement) return true;
  if (target.closest('pre') !== null) return /^(Arrow|Home|End)/.test(key);
  return (key === ' ' || key === 'Enter') && target.closest('button, summary, label') !== null;
}

/** Connects them to whichever session is on the page. */
export function listen(current: () => Theatre | null): void {
  const run = (act: Act): void => {
    const theatre = current();
    if (theatre !== null) act(theatre);
  };
  for (const [id, act] of Object.entries(BUTTONS)) byId(id, HTMLButtonElement).onclick = () => run(act);
  byId('speed', HTMLSelectElement).onchange = () => run((theatre) => theatre.takeSpeed());
  byId('seek', HTMLInputElement).oninput = (event) => run((theatre) => theatre.goTo(Number((event.target as HTMLInputElement).value)));
  byId('find-form', HTMLFormElement).onsubmit = (event) => {
    event.preventDefault();
    run((theatre) => theatre.search());
  };
  byId('text-part', HTMLDetailsElement).ontoggle = () => run((theatre) => theatre.showText());
  byId('warning-close', HTMLButtonElement).onclick = () => (byId('warning', HTMLElement).hidden = true);
  window.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector('dialog[open]') !== null) return;
    const named = event.shiftKey && event.key.startsWith('Arrow') ? `Shift+${event.key}` : event.key;
    const act = KEYS[named] ?? KEYS[named.toLowerCase()];
    if (act === undefined || taken(event.target, event.key)) return;
    event.preventDefault();
    run(act);
  });
}
