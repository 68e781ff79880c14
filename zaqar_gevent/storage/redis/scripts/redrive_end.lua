-- Ends a redrive that runs; returns whether there is such a redrive.
-- KEYS: redrive, when steps are due, running ones of the project.
-- ARGV: state, reason, exact time, seconds to remember it.
local state = call('HGET', KEYS[1], 'state')
if state == 'running' then
    end_redrive(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
end
return state and 1 or 0
