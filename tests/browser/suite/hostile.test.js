// Output is whatever a stranger's container prints. None of it may run, be typed back, leave the terminal, or touch the clipboard.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { launch, open } from './browser.js';
import { inPod, session } from './cluster.js';

const browser = await launch();
after(() => browser.close());

const ESC = '\x1b';
const ST = `${ESC}\\`;
const MARK = 'INJECTED';
const evil = `;echo ${MARK} >/tmp/injected\r\n`;
const base64 = (text) => Buffer.from(text).toString('base64');

/** By what each tries; all of it is printed one after the other. */
const CORPUS = {
  'set the clipboard (OSC 52)': `${ESC}]52;c;${base64(MARK)}\x07${ESC}]52;p;${base64(MARK)}${ST}`,
  'read the clipboard (OSC 52)': `${ESC}]52;c;?\x07${ESC}]52;;?${ST}`,
  'set the title (OSC 0, 1, 2)': `${ESC}]0;${MARK}\x07${ESC}]1;${MARK}\x07${ESC}]2;${MARK}${ST}${ESC}[22t${ESC}[23t`,
  'report the title (CSI 20 t, 21 t)': `${ESC}]2;${evil}\x07${ESC}[21t${ESC}[20t`,
  'have a setting echoed (DECRQSS)': `${ESC}P$q${evil}${ST}${ESC}P$q"p${evil}${ST}${ESC}P$qm${ST}`,
  'have a capability echoed (XTGETTCAP)': `${ESC}P+q${Buffer.from(evil).toString('hex')}${ST}`,
  'have a colour echoed (OSC 4, 10, 11, 12)': `${ESC}]4;1;rgb:13/37/42\x07${ESC}]4;1;?\x07${ESC}]10;#133742\x07${ESC}]10;?\x07${ESC}]11;#133742${ST}${ESC}]11;?${ST}`,
  'define keys (DECUDK)': `${ESC}P0;1|17/${Buffer.from(evil).toString('hex')}${ST}`,
  'answer back (ENQ)': '\x05\x05\x05',
  'report status and place (DSR, DA, DECREQTPARM)': `${ESC}[5n${ESC}[6n${ESC}[c${ESC}[>c${ESC}[=c${ESC}[x${ESC}[?6n`,
  'report modes (DECRQM)': `${ESC}[?2026$p${ESC}[4$p`,
  'move, resize and ask about the window': `${ESC}[3;0;0t${ESC}[8;5;5t${ESC}[14t${ESC}[18t${ESC}[19t${ESC}[9;1t`,
  'run script by a link (OSC 8)': `${ESC}]8;;javascript:window.ran=1${ST}click${ESC}]8;;${ST} ${ESC}]8;;data:text/html,<script>1</script>${ST}click${ESC}]8;;${ST}`,
  'insert markup': `<img src=x onerror="window.ran=1"><script>window.ran=1</script>${ESC}]8;;http://a"onmouseover="window.ran=1${ST}x${ESC}]8;;${ST}`,
  'load a file or picture (OSC 1337, sixel, ReGIS)': `${ESC}]1337;File=inline=1:${base64('<svg/>')}\x07${ESC}Pq#0;2;0;0;0~-${ST}${ESC}PpP[0,0]${ST}`,
  'notify (OSC 9, 777)': `${ESC}]9;${MARK}\x07${ESC}]777;notify;${MARK};${MARK}\x07`,
  'change the font (OSC 50)': `${ESC}]50;${MARK}\x07`,
  'stay on the other screen': `${ESC}[?1049h${ESC}[2J${ESC}[?25l`,
  'keep the mouse and the paste marks': `${ESC}[?1000h${ESC}[?1003h${ESC}[?1006h${ESC}[?2004h${ESC}[?1004h`,
  'never end a sequence': `${ESC}]0;${'A'.repeat(5000)}${ESC}P${'B'.repeat(5000)}\x18`,
  'be no UTF-8': Buffer.from([0xff, 0xfe, 0xc0, 0x80, 0xe2, 0x28, 0xa1, 0xf8, 0xed, 0xa0, 0x80, 0x9d, 0x90, 0x9b]),
  'turn text around': '\u202e\u2066gnp.exe\u2069\u202c',
  'repeat without end (REP, IL, DL, SU, SD, CHT, CBT and others)': ['b', 'L', 'M', 'S', 'T', 'I', 'Z', '@', 'P', 'X', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'd', 'J', 'K', 'g', ' @', ' A', "'}", "'~"]
    .map((final) => `a${ESC}[2147483647${final}`)
    .join(''),
  'clear a thousand times': `${ESC}#8${ESC}[2J${ESC}[3J${ESC}[?1049h${ESC}[?1049l${ESC}c`.repeat(1000),
};

async function put(pod, path, bytes) {
  await inPod(pod, `echo ${Buffer.from(bytes).toString('base64')} | base64 -d > ${path}`);
}

test('the corpus changes nothing outside the terminal, runs nothing, and writes nothing of its own to the shell', async (t) => {
  await put('web', '/tmp/corpus', Buffer.concat(Object.values(CORPUS).map((item) => Buffer.from(item))));
  await inPod('web', 'rm -f /tmp/injected /tmp/answers');
  const asked = [];
  const { page, context, terminal } = await open(t, browser, await session(), {
    permissions: ['clipboard-read', 'clipboard-write'],
    before: async (page) => {
      await page.addInitScript(() => {
        for (const name of ['readText', 'writeText', 'read', 'write']) {
          const real = navigator.clipboard[name].bind(navigator.clipboard);
          navigator.clipboard[name] = (...given) => {
            window.touched = (window.touched ?? []).concat(name);
            return real(...given);
          };
        }
        for (const name of ['open', 'moveTo', 'resizeTo', 'alert', 'prompt']) window[name] = () => void (window.touched = (window.touched ?? []).concat(name));
      });
    },
  });
  context.on('page', (other) => asked.push(other.url()));
  const title = await page.title();
  // Every byte that comes back while the corpus is shown, as the shell would have been typed it.
  await terminal.line("stty raw -echo; cat /tmp/corpus; timeout 4 cat > /tmp/answers; printf '\\033[?1049l\\033c'; stty sane; exit");
  await terminal.card().getByText(/Exit code/).waitFor();
  const answers = Buffer.from(await inPod('web', 'base64 /tmp/answers'), 'base64').toString('latin1');
  assert.match(answers, /\x1b\[0n/, 'harmless questions are answered, so the bytes did come back here');
  assert.ok(!answers.includes(MARK), JSON.stringify(answers));
  assert.doesNotMatch(answers, /[\r\n;]echo|\n|\r|1337|133742/i, JSON.stringify(answers));
  for (const answer of answers.split(ESC).slice(1)) {
    assert.match(answer, /^(\[[?>=]?[\d;]*[cnRxy$]+|\[\?\d+;\d\$y|\[\d+;\d\$y|P[01]\$r[\d;]*[m"prq]*|\\|\](4;\d+|1[012]);rgb:[0-9a-f/]+|\[[IO])$/, `an answer of a known form: ${JSON.stringify(answer)}`);
  }
  assert.equal(await page.title(), title, 'the title is the page’s own');
  assert.equal(await page.evaluate(() => window.ran), undefined, 'nothing ran');
  assert.deepEqual(await page.evaluate(() => window.touched ?? []), [], 'nothing was asked of the browser');
  assert.deepEqual(asked, [], 'nothing was opened');
  assert.equal((await inPod('web', 'ls /tmp/injected 2>/dev/null || true')).trim(), '', 'nothing was run by the shell');
  await terminal.card().getByRole('button', { name: 'Open a new shell' }).click();
  await terminal.ready();
});

test('the terminal goes on after every single one of them', { timeout: 300_000 }, async (t) => {
  const { page, terminal } = await open(t, browser, await session('web', { duration: '1h' }));
  const title = await page.title();
  for (const [what, bytes] of Object.entries(CORPUS)) {
    await t.test(`output that tries to ${what}`, async () => {
      await put('web', '/tmp/one', Buffer.from(bytes));
      // What it makes the terminal answer is read, not left to the shell.
      await terminal.line("stty raw -echo; cat /tmp/one; timeout 1 cat > /dev/null; printf '\\030\\033\\\\\\033c'; stty sane; echo drai\"\"ned");
      await terminal.until(/^drained$/m);
      const mark = `on-${Math.random().toString(36).slice(2)}`;
      await terminal.line(`clear; echo ${mark.slice(0, 4)}""${mark.slice(4)}`);
      await terminal.until(new RegExp(`^${mark}$`, 'm'));
      assert.equal(await page.title(), title);
    });
  }
});

test('a link from the output leads only to the web, after a question, and without a way back', async (t) => {
  const { page, context, terminal } = await open(t, browser, await session(), { hosts: ['elsewhere.example'] });
  await context.route('https://elsewhere.example/**', (route) => route.fulfill({ contentType: 'text/html', body: 'elsewhere' }));
  const click = async (text, leads) => {
    const row = page.locator('.xterm-rows > div', { hasText: text });
    const { x, y, height } = await row.boundingBox();
    await page.mouse.move(x + 50, y + height / 2); // xterm.js looks only when the cell is another
    await page.mouse.move(x + 22, y + height / 2);
    if (leads) await page.locator('.xterm-screen.xterm-cursor-pointer').waitFor();
    else await page.waitForTimeout(300);
    await page.mouse.click(x + 22, y + height / 2);
  };
  const link = (address, text) => `printf '\\033]8;;%s\\033\\\\%s\\033]8;;\\033\\\\\\n' '${address}' '${text}'`;
  await terminal.line(`clear; ${link('javascript:alert(1)', 'scripted')}; ${link('https://elsewhere.example/x?y=1', 'web-link')}; ${link('file:///etc/passwd', 'file-link')}; echo do""ne`);
  await terminal.until(/^done$/m);
  const dialog = page.getByRole('dialog', { name: 'Open this link?' });
  for (const text of ['scripted', 'file-link']) {
    await click(text, false);
    await page.waitForTimeout(300); // for what must not appear
    assert.ok(await dialog.isHidden(), text);
  }
  await click('web-link', true);
  await dialog.waitFor();
  assert.equal(await page.locator('#link-host').textContent(), 'elsewhere.example');
  await dialog.getByRole('button', { name: 'Cancel' }).click();
  assert.equal(context.pages().length, 1);
  await click('web-link', true);
  const opened = context.waitForEvent('page');
  await dialog.getByRole('button', { name: 'Open in a new tab' }).click();
  const other = await opened;
  await other.waitForLoadState();
  assert.equal(await other.evaluate(() => window.opener), null);
  assert.equal(await other.evaluate(() => document.referrer), '');
  await other.close();
});
