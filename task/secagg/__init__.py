"""Secure aggregation: the server learns the sum of its clients' vectors, and nothing else of them.

SecAgg+ (Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine
Learning"; Bell et al. 2020, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead").
A session adds up one vector of each client of a cohort, in four exchanges:

1. share: everybody has a fresh key that was advertised, signed, beforehand. Each client deals
   shares of its self mask and of its mask key to its neighbours, encrypted (`client`, `shamir`);
2. mask: each client sends its vector plus a self mask plus or minus a mask for each neighbour
   (`masks`), modulo 2^b;
3. agree: each client signs whose vectors arrived (the consistency round);
4. unmask: with the signatures of enough others, each client reveals one share per neighbour: of
   the self mask of those whose vector arrived, of the mask key of the others.

The server (`server`) then takes the masks off the sum. What is sound against which adversary is in
docs/threat-model.md.
"""
