"""Building blocks of placement programs, on top of `hwsim.mapping.ilp.Program`.

- `linear`: sums of columns with a constant part (`Sum`), so that fixed decisions leave the program
- `prefix`: contiguous stages, z[i, d] <= z[i-1, d]
- `flows`: tight edge variables between places, one consumer or many
- `hull`: least product of two goals by weighed sums, with a certificate
- `fold`: equal layers as one item with a count
"""
