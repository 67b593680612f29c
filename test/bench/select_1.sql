-- W2 and W7: nothing is asked of the remote; what a local session costs.
SELECT 1;
