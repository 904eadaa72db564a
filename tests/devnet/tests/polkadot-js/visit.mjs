// What a person with polkadot.js does on a CESS network: connect, look, pay, sign, wait until it is final.
// Prints one JSON object; any failure is a non-zero exit.
import { ApiPromise, Keyring, WsProvider } from '@polkadot/api';

const [url] = process.argv.slice(2);
const provider = new WsProvider(url);
const api = await ApiPromise.create({ provider, noInitWarn: true });
const key = new Keyring({ type: 'sr25519', ss58Format: 11330 }).addFromUri('//visitor');

/** Sends a call and waits until the block that has it is final. */
const final = (call) =>
  new Promise((done, failed) => {
    call
      .signAndSend(key, ({ status, dispatchError, events }) => {
        if (!status.isFinalized) return;
        if (dispatchError?.isModule) {
          const { section, name } = api.registry.findMetaError(dispatchError.asModule);
          done({ error: `${section}.${name}` });
        } else {
          done({ events: events.map(({ event }) => `${event.section}.${event.method}`) });
        }
      })
      .catch(failed);
  });

await provider.send('cessfs_faucet', [key.address]);
const minted = await final(api.tx.storageHandler.mintTerritory(1, 'visit', 30));
const again = await final(api.tx.storageHandler.mintTerritory(1, 'visit', 30));
const territory = await api.query.storageHandler.territory(key.address, 'visit');
const stale = await api.tx.system
  .remark('0x00')
  .signAndSend(key, { nonce: 0 })
  .then(
    () => 'accepted',
    (refusal) => refusal.message.slice(0, 4),
  );
const miners = await api.query.sminer.minerItems.keys();
console.log(
  JSON.stringify({
    chain: (await api.rpc.system.chain()).toString(),
    spec: api.runtimeVersion.specVersion.toNumber(),
    address: key.address,
    minted,
    again,
    total: territory.toJSON()?.totalSpace,
    miners: miners.length,
    stale,
  }),
);
await api.disconnect();
