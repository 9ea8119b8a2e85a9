import { describe, expect, it } from "vitest";
import { ansi } from "./ansi";

describe("ansi", () => {
  it("keeps plain text as it is", () => {
    expect(ansi("listening on 8080\n")).toEqual([{ text: "listening on 8080", className: "" }]);
    expect(ansi("")).toEqual([]);
  });

  it("turns colours and weights into classes, and back", () => {
    expect(ansi("\x1b[1;31merror\x1b[0m: \x1b[32mno\x1b[39m matter")).toEqual([
      { text: "error", className: "text-bad-text font-semibold" },
      { text: ": ", className: "" },
      { text: "no", className: "text-good-text" },
      { text: " matter", className: "" },
    ]);
  });

  it("skips colours it has no name for, cursor movements and titles", () => {
    expect(ansi("\x1b[38;5;208mold\x1b[38;2;1;2;3mnew\x1b[2K\x1b]0;title\x07!")).toEqual([
      { text: "old", className: "" },
      { text: "new", className: "" },
      { text: "!", className: "" },
    ]);
  });

  it("shows only the last state of a line that writes over itself", () => {
    expect(ansi("10 %\r50 %\r100 %")).toEqual([{ text: "100 %", className: "" }]);
  });
});
