// One tab: a terminal, its connection, and what is shown before the first and after the last byte.

import { consoleAddress, Refused, session as ask, whyRefused } from './api.ts';
import type { Session } from './api.ts';
import { make } from './dom.ts';
import { type Ending, ending } from './ending.ts';
import { bearer, type Link } from './link.ts';
import { announce } from './page.ts';
import type { Settings } from './settings.ts';
import { type Closed, Connection } from './socket.ts';
import { Terminal } from './terminal.ts';

/** Where a tab is in its life; `ended` by itself, or `cut`. */
export type State = 'choosing' | 'connecting' | 'open' | 'ended' | 'cut';

/** Who is told about a tab. */
export interface Owner {
  changed(tab: Tab): void;
  /** The session as the gateway now sees it, or that it has ended. */
  learnt(session: Session | null, ended: string | null): void;
}

let numbers = 0;

export class Tab {
  readonly number = ++numbers;
  readonly panel: HTMLElement;
  readonly #screen: HTMLElement;
  readonly #card: HTMLElement;
  state: State = 'connecting';
  /** The container it is in; `null`: the session's own. */
  container: string | null = null;
  terminal: Terminal | null = null;
  #connection: Connection | null = null;
  #again: (() => void) | null = null;

  constructor(
    private readonly link: Link,
    private readonly settings: Settings,
    private readonly owner: Owner,
  ) {
    this.#screen = make('div', { className: 'screen' });
    this.#card = make('div', { className: 'card', hidden: true });
    this.panel = make('section', { className: 'panel' }, this.#screen, this.#card);
    this.panel.id = `panel-${this.number}`;
    this.panel.setAttribute('role', 'tabpanel');
    this.panel.setAttribute('aria-labelledby', `tab-${this.number}`);
    new ResizeObserver(() => this.fit()).observe(this.#screen);
  }

  /** Opens a shell, or asks in which container. */
  start(session: Session): void {
    if (session.containers.length > 1) this.#choose(session);
    else this.#connect(null);
  }

  #choose(session: Session): void {
    this.#become('choosing');
    const buttons = session.containers.map((name) => {
      const button = make('button', { className: 'choice', type: 'button', textContent: name });
      if (name === session.container) button.append(make('span', { className: 'hint', textContent: 'default' }));
      button.onclick = () => this.#connect(name);
      return button;
    });
    this.#show(
      make('h2', { textContent: 'Which container?' }),
      make('p', { textContent: `Pod ${session.pod} has ${session.containers.length} that this session may enter.` }),
      make('div', { className: 'choices' }, ...buttons),
    );
    buttons[0]?.focus();
  }

  #connect(container: string | null): void {
    this.container = container;
    this.#card.hidden = true;
    this.#again = null;
    this.terminal?.dispose();
    this.#screen.replaceChildren();
    const terminal = new Terminal(
      this.settings,
      (bytes) => this.#input(bytes),
      (columns, rows) => this.#connection?.resize(columns, rows),
    );
    this.terminal = terminal;
    terminal.open(this.#screen);
    this.#become('connecting');
    const connection = new Connection(consoleAddress(this.link, container), bearer(this.link), {
      opened: () => {
        this.#become('open');
        connection.resize(terminal.xterm.cols, terminal.xterm.rows);
        if (!this.panel.hidden) terminal.xterm.focus();
      },
      output: (bytes) => terminal.write(bytes),
      closed: (end) => void this.#ended(end, connection),
    });
    this.#connection = connection;
  }

  async #ended(end: Closed, connection: Connection): Promise<void> {
    await this.terminal?.shown();
    const refused = end.opened ? null : await whyRefused(this.link, this.container);
    let over: string | null = null;
    try {
      this.owner.learnt(await ask(this.link), null);
    } catch (error) {
      if (error instanceof Refused && error.code === 401) over = error.message;
      this.owner.learnt(null, over);
    }
    if (this.#connection !== connection) return; // closed, or another was opened meanwhile
    this.#connection = null;
    const shown: Ending =
      refused === null || over !== null
        ? ending(end, over)
        : { kind: 'lost', title: 'The gateway did not open it', text: refused.message, code: '', again: 'Try again' };
    this.#end(shown);
  }

  #end({ kind, title, text, code, again }: Ending): void {
    this.#become(kind === 'exit' ? 'ended' : 'cut');
    const heading = make('h2', { textContent: title });
    const parts: Node[] = [heading, make('p', { textContent: text })];
    if (code !== '') parts.push(make('p', { className: 'code', textContent: code }));
    const actions = make('div', { className: 'actions' });
    if (again !== null) {
      const button = make('button', { className: 'primary', type: 'button', textContent: again });
      this.#again = () => this.#connect(this.container);
      button.onclick = this.#again;
      actions.append(button);
    }
    const look = make('button', { type: 'button', textContent: 'Look at the output' });
    look.onclick = () => {
      this.#card.classList.toggle('aside');
      look.textContent = this.#card.classList.contains('aside') ? 'Back' : 'Look at the output';
    };
    actions.append(look);
    this.#show(...parts, actions);
    this.#card.dataset['kind'] = kind;
    announce(`${title}. ${code}`);
    if (!this.panel.hidden) (actions.firstElementChild as HTMLElement).focus();
  }

  #show(...children: Node[]): void {
    this.#card.className = 'card';
    delete this.#card.dataset['kind'];
    this.#card.replaceChildren(...children);
    this.#card.hidden = false;
  }

  #become(state: State): void {
    this.state = state;
    this.panel.dataset['state'] = state;
    this.owner.changed(this);
  }

  #input(bytes: Uint8Array): void {
    if (this.state !== 'open') return;
    if (this.#connection?.input(bytes) === false) announce('Too much input is waiting to be sent; this was left out.', true);
  }

  /** Types text as if by keyboard. */
  type(text: string): void {
    this.terminal?.xterm.input(text, true);
  }

  fit(): void {
    if (!this.panel.hidden && this.#screen.clientWidth > 0) this.terminal?.fit();
  }

  focus(): void {
    if (!this.#card.hidden) this.#card.querySelector('button')?.focus();
    else this.terminal?.xterm.focus();
  }

  /** Hangs up, for good. */
  close(): void {
    this.#connection?.close();
    this.#connection = null;
    this.terminal?.dispose();
    this.terminal = null;
    this.panel.remove();
  }
}
