// The parts of the page around the terminals: facts about the session, announcements, and what fills the page otherwise.

import type { Session } from './api.ts';
import { byId, make } from './dom.ts';

/** Tells people, those who listen to the page too. `visibly`: as a note on the screen as well. */
export function announce(text: string, visibly = false): void {
  byId('announcement', HTMLElement).textContent = text;
  if (!visibly) return;
  const note = byId('note', HTMLElement);
  note.textContent = text;
  note.hidden = false;
  window.setTimeout(() => (note.hidden = true), 6000);
}

/** Who, where and why. */
export function showFacts(namespace: string, session: Session, container: string): void {
  byId('where', HTMLElement).replaceChildren(
    ...[namespace, session.pod, container].flatMap((part, n) => {
      const text = make('span', { className: n === 1 ? 'pod' : '', textContent: part });
      return n === 0 ? [text] : [make('span', { className: 'slash', textContent: '/' }), text];
    }),
  );
  byId('who', HTMLElement).textContent = session.user;
  const why = byId('why', HTMLElement);
  why.textContent = session.reason || 'no reason given';
  why.title = session.reason;
  const recorded = byId('recorded', HTMLElement);
  recorded.textContent = session.recorded ? 'Recorded' : 'Not recorded';
  recorded.dataset['on'] = String(session.recorded);
  document.title = `${session.pod} – Drawbridge`;
}

const CONNECTION = { connected: 'Connected', connecting: 'Connecting…', idle: 'Not connected', ended: 'Ended', disconnected: 'Disconnected' };

/** How the terminal in front is connected. */
export function showConnection(state: keyof typeof CONNECTION): void {
  const element = byId('connection', HTMLElement);
  if (element.dataset['state'] === state) return;
  element.dataset['state'] = state;
  byId('connection-text', HTMLElement).textContent = CONNECTION[state];
}

/** What fills the page when there is no terminal. */
export function showNotice(title: string, text: string, action?: { label: string; run: () => void }): void {
  document.body.dataset['view'] = 'notice';
  byId('notice-title', HTMLElement).textContent = title;
  byId('notice-text', HTMLElement).textContent = text;
  byId('link-form', HTMLFormElement).hidden = true;
  const button = byId('notice-action', HTMLButtonElement);
  button.hidden = action === undefined;
  button.textContent = action?.label ?? '';
  button.onclick = action?.run ?? null;
  if (action !== undefined) button.focus();
}

/** Asks for a link. */
export function askForLink(text: string, given: (text: string) => boolean): void {
  showNotice('A terminal in a pod', text);
  const form = byId('link-form', HTMLFormElement);
  const input = byId('link-input', HTMLInputElement);
  const wrong = byId('link-wrong', HTMLElement);
  form.hidden = false;
  wrong.hidden = true;
  form.onsubmit = (event) => {
    event.preventDefault();
    const good = given(input.value);
    input.value = '';
    wrong.hidden = good;
    input.setAttribute('aria-invalid', String(!good));
  };
  input.focus();
}

/** Shows the terminals. */
export function showTerminals(): void {
  document.body.dataset['view'] = 'terminals';
}
