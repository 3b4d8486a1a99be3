// The page of a session's recordings begins: reads the link, shows the list, opens the newest.

import '@xterm/xterm/css/xterm.css';
import '../style.css';
import './style.css';

import { prepareDocument } from '../csp.ts';
import { byId } from '../dom.ts';
import { ANY_TOKEN, type Link, parse, take } from '../link.ts';
import { askForLink } from '../page.ts';
import { load } from '../settings.ts';
import { listen } from './keys.ts';
import { Theatre } from './theatre.ts';

const ASK = "Paste the link to a session's recordings. It stays in this page: reload or close it, and the link is needed again.";

let theatre: Theatre | null = null;
const settings = load();

function open(link: Link | null): void {
  if (link === null) {
    if (theatre === null) askForLink(ASK, (text) => {
      const given = parse(text, ANY_TOKEN);
      if (given !== null) open(given);
      return given !== null;
    });
    return;
  }
  theatre?.close();
  theatre = new Theatre(link, settings);
  void theatre.start();
}

prepareDocument();
byId('reader', HTMLButtonElement).setAttribute('aria-pressed', String(settings.screenReader));
listen(() => theatre);
window.addEventListener('hashchange', () => open(take(ANY_TOKEN)));
open(take(ANY_TOKEN));
