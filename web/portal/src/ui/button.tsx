import type { ReactNode } from "react";
import { Button as AriaButton, type ButtonProps as AriaButtonProps } from "react-aria-components/Button";
import { createLink } from "@tanstack/react-router";
import { Link as AriaLink, type LinkProps as AriaLinkProps } from "react-aria-components/Link";
import { cx } from "./cx";
import { Tooltip } from "./tooltip";

export type ButtonKind = "primary" | "default" | "quiet" | "danger";
export type ButtonSize = "sm" | "md" | "lg";

const KIND: Record<ButtonKind, string> = {
  primary: "bg-accent text-on-accent data-hovered:bg-accent-hover data-pressed:bg-accent-hover shadow-[inset_0_1px_0_rgb(255_255_255/0.14)]",
  default:
    "bg-panel text-fg border border-line-strong data-hovered:bg-hover data-pressed:bg-press",
  quiet: "text-muted data-hovered:bg-hover data-hovered:text-fg data-pressed:bg-press",
  danger: "bg-bad-solid text-on-accent data-hovered:bg-bad-solid-hover data-pressed:bg-bad-solid-hover",
};
const SIZE: Record<ButtonSize, string> = {
  sm: "h-7 px-2.5 text-sm gap-1.5",
  md: "h-8 px-3 text-sm gap-2",
  lg: "h-10 px-4 text-base gap-2",
};

const DISABLED = "bg-track! text-muted! border-transparent! shadow-none! cursor-not-allowed";

export function buttonClass(kind: ButtonKind, size: ButtonSize, className?: string): string {
  return cx(
    "inline-flex items-center justify-center rounded font-medium whitespace-nowrap select-none transition-colors duration-[120ms] no-underline",
    "data-disabled:bg-track data-disabled:text-faint data-disabled:border-transparent data-disabled:shadow-none",
    KIND[kind],
    SIZE[size],
    className,
  );
}

export interface ButtonProps extends Omit<AriaButtonProps, "className" | "children"> {
  kind?: ButtonKind;
  size?: ButtonSize;
  className?: string;
  children: ReactNode;
  /** Why it cannot be pressed now. The button stays focusable, so that the reason can be read. */
  disabledReason?: string | null | undefined;
  /** Shown instead of the label while the work runs. */
  pendingLabel?: string;
}

export function Button({ kind = "default", size = "md", className, children, disabledReason, pendingLabel, isPending, onPress, type, ...props }: ButtonProps) {
  if (disabledReason != null) {
    return (
      <Tooltip text={disabledReason}>
        <AriaButton {...props} type="button" aria-disabled="true" className={buttonClass(kind, size, cx(DISABLED, className))}>
          {children}
        </AriaButton>
      </Tooltip>
    );
  }
  if (isPending) {
    // Stays focusable and keeps its place; presses go nowhere until the answer is there.
    return (
      <AriaButton {...props} type="button" aria-disabled="true" className={buttonClass(kind, size, cx("cursor-progress opacity-75", className))}>
        {pendingLabel ?? children}
      </AriaButton>
    );
  }
  return (
    <AriaButton {...props} {...(type ? { type } : {})} {...(onPress ? { onPress } : {})} className={buttonClass(kind, size, className)}>
      {children}
    </AriaButton>
  );
}

export interface IconButtonProps extends Omit<AriaButtonProps, "className" | "children"> {
  label: string;
  children: ReactNode;
  className?: string;
}

/** A square button whose words are in its label and tooltip. */
export function IconButton({ label, children, className, ...props }: IconButtonProps) {
  return (
    <Tooltip text={label}>
      <AriaButton
        {...props}
        aria-label={label}
        className={cx(
          "inline-flex size-7 shrink-0 items-center justify-center rounded text-muted transition-colors duration-[120ms] data-hovered:bg-hover data-hovered:text-fg data-pressed:bg-press",
          className,
        )}
      >
        {children}
      </AriaButton>
    </Tooltip>
  );
}

interface ButtonLinkBaseProps extends Omit<AriaLinkProps, "className"> {
  kind?: ButtonKind;
  size?: ButtonSize;
  className?: string;
}

/** A link that looks like a button; takes the router's `to`. */
export const ButtonLink = createLink(function ButtonLinkBase({ kind = "default", size = "md", className, ...props }: ButtonLinkBaseProps) {
  return <AriaLink {...props} className={buttonClass(kind, size, className)} />;
});
