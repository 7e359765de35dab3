import asyncio, time, sys
from datetime import datetime, timedelta, UTC
import asyncpg
async def test_explain(pool):
    N=1_000_000
    await pool.execute("""INSERT INTO syncd.outbox (instance,push,key,fields,created_at) SELECT 'acme','contacts',format('old%s@x',n),'{"s":1}', now()-interval '2 hours' FROM generate_series(1,5000) n""")
    t=time.perf_counter()
    await pool.execute("""INSERT INTO syncd.outbox (instance,push,key,fields) SELECT 'acme','contacts',format('p%s@x',n),'{"s":0}' FROM generate_series(1,$1) n""", N)
    print("insert", time.perf_counter()-t)
    await pool.execute("ANALYZE syncd.outbox")
    from syncd.store import holding
    from syncd.core.guard import digest_of
    async with pool.acquire() as c:
        await holding.expect(c,'acme','contacts','d','first')
        t=time.perf_counter(); a=await holding.arrivals(c,'acme','contacts',60_000,None); print("arrivals", time.perf_counter()-t, len(a))
        for name, q, args in [("ARRIVALS",holding.ARRIVALS,('acme','contacts',60000,None,None)),("NEWEST",holding.NEWEST,('acme','contacts')),("OLDEST",holding.OLDEST,('acme','contacts',20000)),
            ("HOLD",holding.HOLD_SURGE,('acme','contacts',5000,1005000,datetime.now(UTC)-timedelta(hours=1),[5001,5002],20000,'why'))]:
            tx=c.transaction(); await tx.start()
            for r in await c.fetch("EXPLAIN (ANALYZE, BUFFERS OFF, TIMING OFF, COSTS OFF) "+q,*args): print(name, r[0])
            await tx.rollback()
        since=a[-1].made_at
        s=await holding.begin_surge(c,'acme','contacts',since,a[-1].first_id,'why',datetime.now(UTC))
        t=time.perf_counter(); n=0; worst=0
        last=False
        while not last:
            t1=time.perf_counter()
            async with c.transaction():
                k=await holding.known(c,'acme','contacts')
                got,last=await holding.hold_surge(c,'acme','contacts',k.surge,[],'why'); n+=got
            worst=max(worst,time.perf_counter()-t1)
        print("held",n,"in",time.perf_counter()-t,"worst piece",worst)
        t=time.perf_counter(); h=await holding.holds(c,'acme'); print("holds",time.perf_counter()-t,h)
        tx=c.transaction(); await tx.start()
        for r in await c.fetch("EXPLAIN (ANALYZE, BUFFERS OFF, TIMING OFF, COSTS OFF) "+holding.RELEASE,'acme','contacts',None,0,10**9,20000): print("RELEASE", r[0])
        await tx.rollback()
        from syncd.store import discarding
        from syncd.store.discarding import Chosen
        await c.execute("UPDATE syncd.outbox SET push = 'others' WHERE id > 505000")
        t=time.perf_counter(); n=await holding.release(c,'acme','contacts',None,10**9)
        print("released",n,"in",time.perf_counter()-t)
        t=time.perf_counter(); n=await discarding.cancel(c,Chosen('acme','others',datetime.max.replace(tzinfo=UTC),held=True),10**9,datetime.now(UTC))
        print("discarded",n,"in",time.perf_counter()-t)
