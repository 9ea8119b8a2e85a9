const WORDS: Record<string, string> = {
  offline: "offline",
  excluded: "excluded by configuration",
  cordoned: "cordoned",
  draining: "draining",
  drained: "drained",
  missing_tag: "a required tag is missing",
  no_template: "no template of this system",
  no_capacity: "reports no capacity",
  insufficient_cores: "not enough CPU threads left",
  insufficient_mem: "not enough memory left",
  insufficient_disk: "not enough disk left",
};

/** A placement gate in words. */
export function reasonWord(reason: string): string {
  return WORDS[reason] ?? reason.replaceAll("_", " ");
}
