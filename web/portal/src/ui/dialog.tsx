import type { ReactNode } from "react";
import { Dialog as AriaDialog } from "react-aria-components/Dialog";
import { Heading } from "react-aria-components/Heading";
import { Modal, ModalOverlay } from "react-aria-components/Modal";
import { cx } from "./cx";

export interface DialogProps {
  title: string;
  isOpen: boolean;
  onClose: () => void;
  children: ReactNode;
  role?: "dialog" | "alertdialog";
  wide?: boolean;
}

export function Dialog({ title, isOpen, onClose, children, role = "dialog", wide }: DialogProps) {
  return (
    <ModalOverlay
      isOpen={isOpen}
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      isDismissable
      className="fixed inset-0 z-50 flex items-start justify-center overflow-y-auto bg-black/40 px-4 pt-[12vh] pb-8 data-entering:animate-fade max-sm:items-end max-sm:px-0 max-sm:pt-16 max-sm:pb-0"
    >
      <Modal
        className={cx(
          "w-full rounded-lg bg-panel shadow-float outline-none data-entering:animate-rise max-sm:rounded-b-none",
          wide ? "max-w-xl" : "max-w-md",
        )}
      >
        <AriaDialog role={role} className="flex flex-col gap-4 p-5 outline-none">
          <Heading slot="title" className="text-lg font-semibold">
            {title}
          </Heading>
          {children}
        </AriaDialog>
      </Modal>
    </ModalOverlay>
  );
}

export function DialogActions({ children }: { children: ReactNode }) {
  return <div className="mt-1 flex flex-wrap justify-end gap-2">{children}</div>;
}
