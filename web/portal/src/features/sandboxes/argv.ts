/** Splits a command as a shell would, quotes included; null when a quote is left open. */
export function splitCommand(text: string): string[] | null {
  const words: string[] = [];
  let word = "";
  let has = false;
  let quote: string | null = null;
  for (let at = 0; at < text.length; at += 1) {
    const char = text.charAt(at);
    if (quote === "'") {
      if (char === "'") quote = null;
      else word += char;
    } else if (char === "\\") {
      at += 1;
      word += text.charAt(at);
      has = true;
    } else if (quote === '"') {
      if (char === '"') quote = null;
      else word += char;
    } else if (char === "'" || char === '"') {
      quote = char;
      has = true;
    } else if (/\s/.test(char)) {
      if (has) words.push(word);
      word = "";
      has = false;
    } else {
      word += char;
      has = true;
    }
  }
  if (quote !== null) return null;
  if (has) words.push(word);
  return words;
}

/** A word as a shell takes it. */
export function quoteWord(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
