// Begins: reads the link, and opens its session.

import '@xterm/xterm/css/xterm.css';
import './style.css';

import { App } from './app.ts';
import { prepareDocument } from './csp.ts';
import { byId } from './dom.ts';
import { listen } from './keys.ts';
import { type Link, parse, take } from './link.ts';
import { askForLink } from './page.ts';
import { load } from './settings.ts';

const ASK = 'Paste the link to a session. It stays in this page: reload or close it, and the link is needed again.';

let app: App | null = null;
const settings = load();

function open(link: Link | null): void {
  if (link === null) {
    if (app === null) askForLink(ASK, (text) => {
      const given = parse(text);
      if (given !== null) open(given);
      return given !== null;
    });
    return;
  }
  app?.close();
  app = new App(link, settings);
  void app.start();
}

prepareDocument();
byId('screen-reader', HTMLButtonElement).setAttribute('aria-pressed', String(settings.screenReader));
listen(() => app);
window.addEventListener('hashchange', () => open(take()));
window.addEventListener('beforeunload', (event) => {
  if (app?.busy) event.preventDefault(); // the browser asks whether to leave
});
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') app?.awake();
});
open(take());
