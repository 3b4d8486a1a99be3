// Buttons and keys. Every key is Ctrl+Shift and something, which programs in a terminal cannot see anyway.

import type { App } from './app.ts';
import { byId } from './dom.ts';

type Act = (app: App) => void;

/** By `KeyboardEvent.code`: where the key is, since Shift changes what it means. */
const KEYS: Record<string, Act> = {
  KeyC: (app) => void app.copy(),
  KeyF: (app) => app.find(),
  KeyE: (app) => app.open(),
  KeyX: (app) => app.closeFront(),
  KeyL: (app) => app.leaveTerminal(),
  ArrowLeft: (app) => app.next(-1),
  ArrowRight: (app) => app.next(1),
  Equal: (app) => app.zoom(1),
  Minus: (app) => app.zoom(-1),
  Digit0: (app) => app.zoom('default'),
  Slash: (app) => app.help(),
};

const BUTTONS: Record<string, Act> = {
  'new-tab': (app) => app.open(),
  find: (app) => app.find(),
  smaller: (app) => app.zoom(-1),
  larger: (app) => app.zoom(1),
  copy: (app) => void app.copy(),
  paste: (app) => void app.paste(),
  'screen-reader': (app) => app.toggleScreenReader(),
  help: (app) => app.help(),
};

/** Keys that phones lack: what they send, and what they send when a program has asked for application cursor keys. */
const TOUCH: Record<string, [string, string]> = {
  'touch-esc': ['\x1b', '\x1b'],
  'touch-tab': ['\t', '\t'],
  'touch-ctrl-c': ['\x03', '\x03'],
  'touch-ctrl-d': ['\x04', '\x04'],
  'touch-up': ['\x1b[A', '\x1bOA'],
  'touch-down': ['\x1b[B', '\x1bOB'],
  'touch-left': ['\x1b[D', '\x1bOD'],
  'touch-right': ['\x1b[C', '\x1bOC'],
};

/** Connects them to whichever session is on the page. */
export function listen(current: () => App | null): void {
  const run = (act: Act): void => {
    const app = current();
    if (app !== null) act(app);
  };
  for (const [id, act] of Object.entries(BUTTONS)) byId(id, HTMLButtonElement).onclick = () => run(act);
  for (const [id, [normal, application]] of Object.entries(TOUCH)) {
    const button = byId(id, HTMLButtonElement);
    button.onpointerdown = (event) => event.preventDefault(); // the terminal, and with it the phone's keyboard, stays in front
    button.onclick = () => run((app) => app.type(app.applicationCursor ? application : normal));
  }
  window.addEventListener(
    'keydown',
    (event) => {
      if (!event.ctrlKey || !event.shiftKey || event.altKey || event.metaKey) return;
      const act = KEYS[event.code];
      if (act === undefined || document.querySelector('dialog[open]') !== null) return;
      event.preventDefault();
      event.stopPropagation();
      run(act);
    },
    { capture: true },
  );
  // Before xterm.js sees it, which would paste control characters as well.
  byId('panels', HTMLElement).addEventListener(
    'paste',
    (event) => {
      event.preventDefault();
      event.stopPropagation();
      run((app) => app.pasteText(event.clipboardData?.getData('text/plain') ?? ''));
    },
    { capture: true },
  );
}
