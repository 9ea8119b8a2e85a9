import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { keys } from "~/api/queries";
import { work } from "~/api/workloads";
import { InlineError } from "~/app/problem";
import { Button } from "~/ui/button";
import { Dialog, DialogActions } from "~/ui/dialog";
import { notify } from "~/ui/toast";

/** For a host that is lost and will not come back. */
export function ForgetHost({ name }: { name: string }) {
  const [isOpen, setOpen] = useState(false);
  const client = useQueryClient();
  const forget = useMutation({
    mutationFn: () => work.forgetHost(name),
    onSuccess: () => {
      setOpen(false);
      notify({ tone: "good", title: `${name} is forgotten` });
      void client.invalidateQueries({ queryKey: keys.hosts });
    },
  });
  return (
    <>
      <Button
        onPress={() => {
          forget.reset();
          setOpen(true);
        }}
      >
        Forget
      </Button>
      <Dialog
        title={`Forget ${name}`}
        role="alertdialog"
        isOpen={isOpen}
        onClose={() => {
          setOpen(false);
        }}
      >
        <p>It is not listed any more, and nobody is alarmed about it. If its agent speaks again, it is a host again.</p>
        {forget.isError ? <InlineError error={forget.error} /> : null}
        <DialogActions>
          <Button
            onPress={() => {
              setOpen(false);
            }}
          >
            Cancel
          </Button>
          <Button
            kind="danger"
            isPending={forget.isPending}
            pendingLabel="Forgetting"
            onPress={() => {
              forget.mutate();
            }}
          >
            Forget host
          </Button>
        </DialogActions>
      </Dialog>
    </>
  );
}
