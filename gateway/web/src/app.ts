// One session on the page: its facts, its tabs, and what can be done with them.

import { Refused, type Session, session as ask } from './api.ts';
import { Countdown } from './countdown.ts';
import { showKeys } from './dialogs.ts';
import { byId, make } from './dom.ts';
import type { Link } from './link.ts';
import { announce, showConnection, showFacts, showNotice, showTerminals } from './page.ts';
import { SearchBar } from './search.ts';
import { save, type Settings, zoomed } from './settings.ts';
import { type Owner, Tab } from './tab.ts';

/** How long until a session that is not granted yet is looked at again, in milliseconds. */
const LOOK_AGAIN = 2000;

const CONNECTION = { choosing: 'idle', connecting: 'connecting', open: 'connected', ended: 'ended', cut: 'disconnected' } as const;

export class App implements Owner {
  readonly #tabs: Tab[] = [];
  readonly #countdown = new Countdown(() => void this.#refresh());
  readonly #search = new SearchBar(() => this.#front?.focus());
  #front: Tab | null = null;
  #session: Session | null = null;
  /** Why the whole session is over; `null`: it is not. */
  #ended: string | null = null;
  #gone = false;

  constructor(
    readonly link: Link,
    private readonly settings: Settings,
  ) {}

  /** Whether leaving the page would end something. */
  get busy(): boolean {
    return this.#tabs.some((tab) => tab.state === 'open');
  }

  /** Asks for the session, waits until it is granted, and opens the first terminal. */
  async start(): Promise<void> {
    showNotice('Connecting…', `Asking the gateway for session ${this.link.namespace}/${this.link.name}.`);
    const again = { label: 'Try again', run: () => void this.start() };
    try {
      const session = await ask(this.link);
      if (this.#gone) return;
      if (session.mode === 'Observe') {
        // It opens no terminal: its page is the other one, and takes the same link.
        window.location.replace(`replay.html#${this.link.namespace}/${this.link.name}/${this.link.token}`);
        return;
      }
      if (!session.ready) {
        showNotice('Not granted yet', `The session is ${session.phase || 'new'}; this page looks again by itself.`);
        window.setTimeout(() => !this.#gone && void this.start(), LOOK_AGAIN);
        return;
      }
      showTerminals();
      this.learnt(session, null);
      this.open();
    } catch (error) {
      if (this.#gone) return;
      const { code, message } = error instanceof Refused ? error : new Refused(0, String(error));
      if (code === 401) showNotice('This link opens nothing any more', message);
      else showNotice(code === 0 ? 'No connection' : 'The gateway refused', message, again);
    }
  }

  async #refresh(): Promise<void> {
    try {
      this.learnt(await ask(this.link), null);
    } catch (error) {
      this.learnt(null, error instanceof Refused && error.code === 401 ? error.message : null);
    }
  }

  /** After the computer slept the numbers may be old. */
  awake(): void {
    if (this.#session !== null && this.#ended === null) void this.#refresh();
  }

  learnt(session: Session | null, ended: string | null): void {
    if (this.#gone) return;
    if (ended !== null) {
      this.#ended = ended;
      this.#countdown.stop('none');
      document.body.dataset['session'] = 'ended';
    }
    if (session !== null) {
      this.#session = session;
      if (session.expiresAt === null || session.expiresAt > Date.now()) this.#countdown.set(session.expiresAt);
    }
    this.#draw();
  }

  /** One more terminal. */
  open(): void {
    if (this.#session === null || !this.#mayOpen()) return;
    const tab = new Tab(this.link, this.settings, this);
    this.#tabs.push(tab);
    byId('panels', HTMLElement).append(tab.panel);
    this.show(tab);
    tab.start(this.#session);
  }

  #mayOpen(): boolean {
    const session = this.#session;
    return session !== null && this.#ended === null && this.#tabs.length < session.maxConnections;
  }

  show(tab: Tab): void {
    this.#search.close();
    this.#front = tab;
    for (const other of this.#tabs) other.panel.hidden = other !== tab;
    this.#draw();
    tab.fit();
    tab.focus();
  }

  #close(tab: Tab): void {
    const at = this.#tabs.indexOf(tab);
    if (at < 0 || this.#tabs.length === 1) return;
    tab.close();
    this.#tabs.splice(at, 1);
    announce(`Terminal ${tab.number} closed`);
    const next = this.#tabs[Math.min(at, this.#tabs.length - 1)];
    if (this.#front === tab && next !== undefined) this.show(next);
    else this.#draw();
  }

  changed(tab: Tab): void {
    if (this.#tabs.includes(tab)) this.#draw();
  }

  /** Ends everything: another link was opened in this page. */
  close(): void {
    this.#gone = true;
    this.#countdown.stop();
    this.#search.close();
    for (const tab of this.#tabs.splice(0)) tab.close();
    byId('tabs', HTMLElement).replaceChildren();
    delete document.body.dataset['session'];
  }

  #draw(): void {
    const [session, front] = [this.#session, this.#front];
    if (session === null || front === null) return;
    showFacts(this.link.namespace, session, front.container ?? session.container);
    showConnection(CONNECTION[front.state]);
    this.#drawTabs(session);
    const more = byId('new-tab', HTMLButtonElement);
    more.disabled = !this.#mayOpen();
    more.title =
      this.#ended !== null
        ? 'The session has ended'
        : more.disabled
          ? `This session may have ${session.maxConnections} connections at a time`
          : 'New terminal (Ctrl+Shift+E)';
  }

  #drawTabs(session: Session): void {
    const list = byId('tabs', HTMLElement);
    const focused = list.contains(document.activeElement) && document.activeElement?.id;
    list.replaceChildren(
      ...this.#tabs.flatMap((tab) => {
        const name = session.containers.length > 1 && tab.container !== null ? tab.container : 'Shell';
        const button = make('button', { className: 'tab', type: 'button' }, make('span', { className: 'dot' }), make('span', { textContent: `${name} ${tab.number}` }));
        button.id = `tab-${tab.number}`;
        button.dataset['state'] = tab.state;
        button.setAttribute('role', 'tab');
        button.setAttribute('aria-selected', String(tab === this.#front));
        button.setAttribute('aria-controls', tab.panel.id);
        button.tabIndex = tab === this.#front ? 0 : -1;
        button.onclick = () => this.show(tab);
        button.onkeydown = (event) => this.#tabKey(event, tab);
        if (this.#tabs.length === 1) return [button];
        const close = make('button', { className: 'tab-close', type: 'button', textContent: '×', title: `Close ${name} ${tab.number}` });
        close.setAttribute('aria-label', close.title);
        close.tabIndex = tab === this.#front ? 0 : -1;
        close.onclick = () => this.#close(tab);
        return [make('span', { className: 'tab-pair' }, button, close)];
      }),
    );
    if (typeof focused === 'string' && focused !== '') document.getElementById(focused)?.focus();
  }

  #tabKey(event: KeyboardEvent, tab: Tab): void {
    const at = this.#tabs.indexOf(tab);
    const last = this.#tabs.length - 1;
    const to = { ArrowLeft: at === 0 ? last : at - 1, ArrowRight: at === last ? 0 : at + 1, Home: 0, End: last }[event.key];
    if (event.key === 'Delete') this.#close(tab);
    else if (to !== undefined) {
      this.show(this.#tabs[to] ?? tab);
      byId(`tab-${(this.#tabs[to] ?? tab).number}`, HTMLElement).focus();
    } else return;
    event.preventDefault();
  }

  // What the buttons and keys do.

  next(by: number): void {
    const at = this.#front === null ? 0 : this.#tabs.indexOf(this.#front);
    const tab = this.#tabs[(at + by + this.#tabs.length) % this.#tabs.length];
    if (tab !== undefined) this.show(tab);
  }

  closeFront(): void {
    if (this.#front !== null) this.#close(this.#front);
  }

  find(): void {
    if (this.#front?.terminal) this.#search.open(this.#front.terminal);
  }

  zoom(by: number | 'default'): void {
    this.settings.fontSize = zoomed(this.settings.fontSize, by);
    this.#apply();
    announce(`Font size ${this.settings.fontSize}`);
  }

  toggleScreenReader(): void {
    this.settings.screenReader = !this.settings.screenReader;
    this.#apply();
    announce(`Screen reader support ${this.settings.screenReader ? 'on' : 'off'}`);
  }

  #apply(): void {
    save(this.settings);
    for (const tab of this.#tabs) tab.terminal?.apply(this.settings);
    byId('screen-reader', HTMLButtonElement).setAttribute('aria-pressed', String(this.settings.screenReader));
  }

  async copy(): Promise<void> {
    const text = this.#front?.terminal?.xterm.getSelection() ?? '';
    if (text === '') return announce('Nothing is selected', true);
    try {
      await navigator.clipboard.writeText(text);
      announce('Copied', true);
    } catch {
      announce('The browser did not allow copying', true);
    }
    this.#front?.focus();
  }

  /** Pastes what the browser hands out, which it asks the person about. */
  async paste(): Promise<void> {
    try {
      this.pasteText(await navigator.clipboard.readText());
    } catch {
      announce('The browser did not allow pasting by button; use its own paste key', true);
    }
  }

  pasteText(text: string): void {
    this.#front?.terminal?.paste(text);
    this.#front?.focus();
  }

  type(text: string): void {
    this.#front?.type(text);
  }

  /** Out of the terminal, which takes the Tab key itself. */
  leaveTerminal(): void {
    if (this.#front !== null) byId(`tab-${this.#front.number}`, HTMLElement).focus();
  }

  help(): void {
    showKeys();
  }

  /** Whether cursor keys are to be sent in the form programs like editors ask for. */
  get applicationCursor(): boolean {
    return this.#front?.terminal?.xterm.modes.applicationCursorKeysMode ?? false;
  }
}
