// The two dialogs: where a link leads, and which keys there are.

import { byId } from './dom.ts';
import { plain } from './text.ts';

/** Asks before a link from the output is followed; only http and https are. */
export function openLink(address: string): void {
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    return;
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return;
  const dialog = byId('link-dialog', HTMLDialogElement);
  if (dialog.open) return;
  byId('link-host', HTMLElement).textContent = plain(url.host);
  byId('link-address', HTMLElement).textContent = plain(url.href, 4096);
  dialog.returnValue = '';
  dialog.onclose = () => {
    // Its own process, no way back to this page, and no word of where it came from.
    if (dialog.returnValue === 'open') window.open(url.href, '_blank', 'noopener,noreferrer');
  };
  dialog.showModal();
}

/** Shows the keys. */
export function showKeys(): void {
  byId('keys-dialog', HTMLDialogElement).showModal();
}
