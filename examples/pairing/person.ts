/**
 * A person at the page: reads its text and presses its buttons, with exactly the fields that the page has put into their
 * forms. It does not know the routes.
 */

/** A fingerprint as it stands on a screen. */
export interface Shown {
  readonly pictures: string;
  readonly words: string;
  readonly hex: string;
}

export interface Card extends Shown {
  /** The part of the page, with its forms. */
  readonly part: string;
  readonly text: string;
}

export interface Seen {
  readonly page: string;
  readonly status: number;
  readonly alert: string | undefined;
  readonly own: Shown;
  /** The window's remaining time, undefined while it is closed. */
  readonly left: string | undefined;
  readonly requests: readonly Card[];
  readonly paired: readonly Card[];
}

export interface Person {
  looks(): Promise<Seen>;
  /** Presses a button of that part of a page; `changed` are fields that are filled in by hand. What then stands there. */
  presses(part: string, button: string, changed?: Readonly<Record<string, string>>): Promise<Seen>;
}

export function createPerson(url: string, password: string): Person {
  const headers = { authorization: `Basic ${Buffer.from(`operator:${password}`).toString('base64')}` };
  return {
    looks: async () => read(await fetch(url, { headers })),
    async presses(part, button, changed = {}) {
      const { action, fields } = formWith(part, button);
      const body = new URLSearchParams({ ...fields, ...changed });
      return read(await fetch(new URL(action, url), { method: 'POST', headers, body }));
    },
  };
}

/** The fingerprint below a title in what a terminal printed. */
export function readTerminal([, pictures = '', words = '', first = '', second = '']: RegExpExecArray): Shown {
  return { pictures, words, hex: `${first} ${second}` };
}

async function read(answer: Response): Promise<Seen> {
  const page = await answer.text();
  const all = (pattern: RegExp): Card[] =>
    [...page.matchAll(pattern)].map(([part]) => ({ part, text: textOf(part), ...shownIn(part) }));
  const alert = /<p class="alert".*?<\/p>/s.exec(page)?.[0];
  return {
    ...{ page, status: answer.status, alert: alert && textOf(alert) },
    own: shownIn(/<section[^>]* id="own".*?<\/section>/s.exec(page)?.[0] ?? ''),
    left: /id="left"[^>]*>([^<]+)/.exec(page)?.[1],
    requests: all(/<form class="card request".*?<\/form>/gs),
    paired: all(/<tr id="peer-.*?<\/tr>/gs),
  };
}

function shownIn(part: string): Shown {
  const each = (kind: string): string[] =>
    [...part.matchAll(new RegExp(`class="${kind}"[^>]*>([^<]*)`, 'g'))].map(([, text = '']) => text);
  return {
    pictures: each('emoji').join(' '),
    words: each('word').join(', '),
    hex: textOf(/<code class="hex">.*?<\/code>/s.exec(part)?.[0] ?? ''),
  };
}

function formWith(part: string, button: string): { action: string; fields: Record<string, string> } {
  const forms = [...part.matchAll(/<form[^>]*action="([^"]+)".*?<\/form>/gs)];
  for (const [form, action = ''] of forms) {
    const pressed = [...form.matchAll(/<button([^>]*)>([^<]*)/g)].find(([, , text]) => text === button);
    if (pressed === undefined) continue;
    const hidden = form.matchAll(/<input\s+type="hidden"\s+name="([^"]*)"\s+value="([^"]*)"/g);
    const fields = Object.fromEntries([...hidden].map(([, name = '', value = '']) => [name, value]));
    return { action: /formaction="([^"]*)"/.exec(pressed[1] ?? '')?.[1] ?? action, fields };
  }
  throw new Error(`the page has no button ${button} there`);
}

/** As it stands on the screen, near enough. */
function textOf(part: string): string {
  const text = part.replace(/<[^>]*>/g, ' ').replace(/\s+/g, ' ');
  return text
    .replace(/&lt;/g, '<')
    .replace(/&gt;/g, '>')
    .replace(/&quot;/g, '"')
    .replace(/&#39;/g, "'")
    .replace(/&amp;/g, '&')
    .trim();
}
