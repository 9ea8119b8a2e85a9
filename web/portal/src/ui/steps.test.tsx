import { render, screen, within } from "@testing-library/react";
import { describe, expect, it } from "vitest";
import { stepItems } from "~/features/operations/steps";
import { NOW, provision } from "~/mocks/data";
import { announce, Steps } from "./steps";

describe("Steps", () => {
  it("lists nine steps in order with what each took", () => {
    render(<Steps steps={stepItems(provision(6).steps)} now={NOW} />);
    const items = within(screen.getByRole("list", { name: "Progress" })).getAllByRole("listitem");
    expect(items).toHaveLength(9);
    expect(items[2]).toHaveTextContent("Clone template, done");
    expect(items[2]).toHaveTextContent("24.3 s");
    expect(items[6]).toHaveAttribute("aria-current", "step");
    expect(items[6]).toHaveTextContent("6 s");
    expect(items[8]).toHaveTextContent("Finish, waiting");
  });

  it("counts the running step up with the clock", () => {
    const steps = stepItems(provision(6).steps);
    const { rerender } = render(<Steps steps={steps} now={NOW} />);
    rerender(<Steps steps={steps} now={NOW + 60_000} />);
    expect(screen.getByText("1:06")).toBeInTheDocument();
  });

  it("tells failed from undone in words", () => {
    render(<Steps steps={stepItems(provision(2, { state: "failed", failAt: 2 }).steps)} now={NOW} />);
    const items = screen.getAllByRole("listitem");
    expect(items[0]).toHaveTextContent("undone");
    expect(items[1]).toHaveTextContent("done");
    expect(items[2]).toHaveTextContent("failed");
    expect(items[3]).toHaveTextContent("waiting");
  });
});

describe("announce", () => {
  it("says one sentence", () => {
    expect(announce(stepItems(provision(2).steps))).toBe("Step 3 of 9: Clone template");
    expect(announce(stepItems(provision(9).steps))).toBe("All steps done");
    expect(announce(stepItems(provision(2, { state: "failed", failAt: 2 }).steps))).toBe("Clone template failed");
  });
});
